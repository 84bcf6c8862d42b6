"""A distribution compared with a pass over all images, on both databases."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from db.database import Database, open_database
from db.errors import TransientError
from db.ledger.models import Model
from db.policy.policies import Policy, resolve
from db.read.comparison import compare
from db.read.distribution import Distribution, count_scores
from db.read.histograms import histogram
from db.read.score_stream import every_score
from db.schema import predictions
from db.scores import NEVER, SCALE
from tests.fixtures.examples import up_to
from tests.services.conftest import TAGS, make_model
from tests.services.test_judging import Rows, store

IMAGES, FLOOR = 5, 100

thoroughly = hypothesis_settings(
    max_examples=up_to(25), deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)
on_steps = st.integers(FLOOR // 10, SCALE // 10).map(lambda step: step * 10)
some_scores = st.sampled_from([FLOOR, 3499, 3500, SCALE]) | st.integers(FLOOR, SCALE)
some_rows = st.lists(st.dictionaries(st.integers(0, 6), some_scores), min_size=IMAGES, max_size=IMAGES)
some_cuts = st.sampled_from([FLOOR, 3500, 5000, SCALE, NEVER]) | st.integers(1, 100).map(lambda level: level * 100)
some_policies = st.builds(
    Policy,
    default=some_cuts,
    categories=st.dictionaries(st.just("general"), some_cuts),
    tags=st.dictionaries(st.sampled_from(["tag_01", "tag_02"]), some_cuts | on_steps, max_size=1),
)
URIS = [f"s3://b/{number}" for number in range(IMAGES)]


def counted(database: Database, model: Model) -> Distribution:
    with database.read() as connection:
        return count_scores(connection, model)


def test_counts_are_those_of_a_walk(database: Database, model: Model) -> None:
    """Images of each tag are always equal; changed images whenever the distribution gives a number, as documented."""

    @thoroughly
    @given(some_rows, some_policies, some_policies)
    def check(rows: Rows, one: Policy, other: Policy) -> None:
        store(database, model, URIS, rows)
        found = counted(database, model)
        first, second = resolve(model, TAGS, one), resolve(model, TAGS, other)
        with database.read() as connection:
            walked = compare(connection, model, first, second)
            spread = histogram(connection, model, 1, 50)
        gained, lost = found.gained_lost(first, second)
        assert found.can_tell(first)
        assert found.images == IMAGES
        assert gained.tolist() == walked.gained.tolist()
        assert lost.tolist() == walked.lost.tolist()
        assert found.kept(first).tolist() == (walked.kept + walked.lost).tolist()
        assert found.assignments(first) == int((walked.kept + walked.lost).sum())
        assert found.histogram(1, 50) == spread
        told = found.changed_images(first, second)
        assert told in {None, walked.changed}
        if not (one.categories or other.categories or one.tags or other.tags):
            assert told == walked.changed

    check()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Policy(3500, {"general": 3500}), Policy(3500, {"general": 5000})),
        (Policy(3500, {"general": NEVER}), Policy(3500, {"general": FLOOR})),
        (Policy(3500, {"general": 3500}, {"tag_02": 120}), Policy(3500, {"general": 5000}, {"tag_02": 120})),
        (Policy(3500, tags={"tag_01": 1230}), Policy(3500, tags={"tag_01": 4560})),
        (Policy(3500, tags={"tag_19": 1230}), Policy(5000, tags={"tag_19": 7000})),
        (Policy(3500), Policy(3500)),
    ],
    ids=["category", "switched off", "beside an odd one", "a tag", "a tag without scores", "nothing"],
)
def test_what_moves_together_is_told(database: Database, model: Model, one: Policy, other: Policy) -> None:
    rng = np.random.default_rng(2)
    rows = [{tag: int(rng.integers(FLOOR, SCALE)) for tag in rng.choice(19, 6, replace=False)} for _ in range(200)]
    store(database, model, [f"s3://b/{number}" for number in range(200)], rows)
    first, second = resolve(model, TAGS, one), resolve(model, TAGS, other)
    with database.read() as connection:
        walked = compare(connection, model, first, second)
    assert counted(database, model).changed_images(first, second) == walked.changed


def test_more_categories_than_there_are_tables_for(
    database: Database, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changed images are known for the first categories, and for all tags."""
    monkeypatch.setattr("db.postings.unchanged_images.MOST_CATEGORIES", 1)
    store(database, model, URIS, [{1: 4000, 3: 4000}, {0: 4000, 2: 4000}, {0: 4000}, {0: 9000}, {3: 9000}])
    found = counted(database, model)
    before = resolve(model, TAGS, Policy(3500, {"general": 3500}))
    first, second, both = (
        resolve(model, TAGS, Policy(default, {"general": general}))
        for default, general in ((5000, 3500), (3500, 5000), (5000, 5000))
    )
    assert [found.changed_images(before, cut) for cut in (first, second, both)] == [2, None, 3]


@pytest.mark.parametrize(
    "other",
    [Policy(3550), Policy(3555), Policy(3500, top=2), Policy(mcut=True), Policy(3500, tags={"tag_01": 1, "tag_02": 2})],
    ids=["within a step", "within a tag's step", "top", "mcut", "two tags"],
)
def test_what_it_cannot_know_it_does_not_tell(database: Database, other: Policy) -> None:
    model = make_model(database, floor=0)
    rows: Rows = [{1: 4000, 2: 3540}, {2: 3500, 3: 3510, 4: 1}, {1: 1, 2: 1}, {}, {4: 1}]
    store(database, model, URIS, rows)
    found = counted(database, model)
    assert found.changed_images(resolve(model, TAGS, Policy(3500)), resolve(model, TAGS, other)) is None


def test_a_floor_between_two_steps_is_exact(database: Database) -> None:
    model = make_model(database, "odd", floor=125)
    store(database, model, URIS, [{1: 125}, {1: 126, 2: 199}, {3: 5000}, {}, {}])
    found = counted(database, model)
    first, second = (resolve(model, TAGS, Policy(score)) for score in (125, 5000))
    assert found.can_tell(first)
    assert found.assignments(first) == 4
    assert found.changed_images(first, second) == 2


def test_progress_tells_of_every_image(
    database: Database, model: Model, registered: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model without predictions can be counted, and pending images are not counted."""
    told: list[int] = []
    with database.read() as connection:
        assert count_scores(connection, model, advance=told.append).images == 0
    store(database, model, URIS, [{1: 9000}] * IMAGES)
    registered(IMAGES + 3)
    monkeypatch.setattr("db.read.score_stream.IMAGES_AT_ONCE", 2)
    with database.read() as connection:
        assert count_scores(connection, model, advance=told.append).images == IMAGES
    assert told == [2, 2, 1]


def test_a_count_that_is_given_up_leaves_the_connection_usable(database: Database, model: Model) -> None:
    store(database, model, URIS, [{1: 9000}] * IMAGES)

    def stop(_images: int) -> None:
        raise InterruptedError

    with database.read() as connection:
        with pytest.raises(InterruptedError):
            count_scores(connection, model, advance=stop)
        assert count_scores(connection, model).images == IMAGES


def test_a_count_that_the_database_ends_may_be_tried_again(migrated_postgres_url: str) -> None:
    """The driver's error of a cancelled COPY is converted to a TransientError."""
    database = open_database(migrated_postgres_url)
    model = make_model(database)
    with database.write() as other:
        other.execute(text("lock table predictions in access exclusive mode"))
        with pytest.raises(TransientError, match="stopped"), database.read() as connection:
            connection.execute(text("set local statement_timeout = 100"))
            list(every_score(connection, model, predictions.c.model_id == model.id))
    database.close()
