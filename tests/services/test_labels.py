"""Labels on both databases: the latest judgement of a person, the majority of several, and labels that are ignored."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, text

from db.database import Database
from db.errors import SettingsError
from db.ledger import images, models
from db.ledger.images import Reference
from db.ledger.models import Model, Tag
from db.schema import labels as table
from db.schema import models as models_table
from db.schema import predictions
from db.truth import labels
from db.truth.labels import NOT_STORED, Drawn, LabelCounts
from tests.fixtures.examples import up_to
from tests.services.test_judging import store

URIS = [f"s3://b/{number}" for number in range(4)]
ROWS = [{1: 9000, 2: 5000}, {1: 3000}, {2: 7000}, {}]
thoroughly = hypothesis_settings(
    max_examples=up_to(25), deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)


@pytest.fixture
def ids(database: Database, model: Model) -> list[int]:
    """The ids of four images that the model has tagged."""
    return store(database, model, URIS, ROWS)


def judge(
    database: Database, model: Model, image_id: int, tag_id: int, is_right: bool, by: str = "ann", **options: Any
) -> None:
    with database.write() as connection:
        labels.save(connection, model, image_id, tag_id, is_right, by=by, **({"drawn": Drawn.RANDOM} | options))


def stored(database: Database) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(select(table).order_by(table.c.image_id, table.c.tag, table.c.judged_by)))


def of_tag(database: Database, model: Model, tag_id: int) -> list[tuple[int, int, bool]]:
    with database.read() as connection:
        found = labels.of_tag(connection, model, tag_id)
    assert (found.image_ids.dtype, found.scores.dtype, found.right.dtype) == (np.int64, np.int16, np.bool_)
    assert len(found) == found.scores.size == found.right.size
    return list(zip(found.image_ids.tolist(), found.scores.tolist(), found.right.tolist(), strict=True))


# ── what is stored ──


def test_a_label_says_who_when_what_and_of_which_picture(database: Database, model: Model, ids: list[int]) -> None:
    before = datetime.now(UTC)
    judge(database, model, ids[0], 1, False, "Ann Müller", drawn=Drawn.LINE)
    judge(database, model, ids[3], 1, True)
    (first, second) = stored(database)
    assert (first.image_id, first.tag, first.judged_by, first.is_right) == (ids[0], "tag_01", "Ann Müller", False)
    assert (first.model_id, first.score, first.image_version, first.drawn) == (model.id, 9000, "1", "line")
    assert before <= first.judged_at <= datetime.now(UTC)
    assert (second.score, second.is_right, second.drawn) == (None, True, "random")


def test_the_last_word_of_a_person_counts(database: Database, model: Model, ids: list[int]) -> None:
    """It is stored with the score and version that were shown."""
    judge(database, model, ids[0], 1, True)
    store(database, model, URIS[:1], [{1: 4000}])
    judge(database, model, ids[0], 1, False, drawn=Drawn.SEARCH)
    (row,) = stored(database)
    assert (row.is_right, row.score, row.drawn) == (False, 4000, "search")
    assert of_tag(database, model, 1) == [(ids[0], 4000, False)]


def test_what_was_said_can_be_taken_back(database: Database, model: Model, ids: list[int]) -> None:
    """By the same person. Withdrawing a label that does not exist is no error."""
    judge(database, model, ids[0], 1, True)
    judge(database, model, ids[0], 2, True)
    judge(database, model, ids[0], 1, True, "bob")
    with database.write() as connection:
        for _ in range(2):
            labels.forget(connection, model, ids[0], 1, by="ann")
        labels.forget(connection, model, ids[0], 99, by="ann")
    assert [(row.tag, row.judged_by) for row in stored(database)] == [("tag_01", "bob"), ("tag_02", "ann")]


def test_two_clicks_at_the_same_moment_are_one_label(
    database: Database, model: Model, ids: list[int], in_threads: Callable[..., None]
) -> None:
    def click(number: int, barrier: threading.Barrier) -> None:
        barrier.wait()
        judge(database, model, ids[0], 1, bool(number % 2))

    in_threads(4, click)
    assert len(stored(database)) == 1


@pytest.mark.parametrize("by", ["", "  ", " ann", "ann\n", "an\0n", "an\x1b[31mn", "a" * 101, "\ud800", "a\u202eb"])
def test_a_name_that_cannot_be_one_is_refused(database: Database, model: Model, ids: list[int], by: str) -> None:
    with pytest.raises(SettingsError, match="1 to 100 characters, without control characters") as caught:
        judge(database, model, ids[0], 1, True, by)
    assert len(str(caught.value)) < 1000
    assert stored(database) == []


def test_the_longest_name_is_stored(database: Database, model: Model, ids: list[int]) -> None:
    judge(database, model, ids[0], 1, True, "<b>'" + "ü" * 96)
    assert stored(database)[0].judged_by == "<b>'" + "ü" * 96


def test_what_is_not_there_cannot_be_judged(
    database: Database, model: Model, other_model: Model, ids: list[int]
) -> None:
    """An unknown tag, or an image that is not registered, not tagged by this model, or changed."""
    for tag_id in (20, -1, 32767):
        with pytest.raises(SettingsError, match=rf"tiny has no tag {tag_id}\."):
            judge(database, model, ids[0], tag_id, True)
    with pytest.raises(SettingsError, match="tiny has not tagged the current version of image 999"):
        judge(database, model, 999, 1, True)
    with pytest.raises(SettingsError, match="other has not tagged the current version of image 1"):
        judge(database, other_model, ids[0], 1, True)
    with database.write() as connection:
        images.register(connection, [Reference(URIS[0], "2", 10)], model.id)
    with pytest.raises(SettingsError, match="current version of image .*, so there is nothing to judge"):
        judge(database, model, ids[0], 1, True)
    assert stored(database) == []


def test_a_slot_without_a_name_is_no_tag(database: Database) -> None:
    with database.write() as connection:
        holed = models.register(
            connection,
            name="holed",
            weights_sha256="h",
            spec={},
            tag_list=[Tag(""), Tag("twice"), Tag("twice")],
            floor=100,
            default_threshold=3500,
        )
    (image_id,) = store(database, holed, URIS[:1], [{0: 5000, 1: 6000, 2: 7000}])
    with pytest.raises(SettingsError, match=r"holed has no tag 0\."):
        judge(database, holed, image_id, 0, True)
    # A name that two outputs of the model share is one label, which counts for both.
    judge(database, holed, image_id, 2, True)
    assert of_tag(database, holed, 1) == [(image_id, 6000, True)]
    assert of_tag(database, holed, 2) == [(image_id, 7000, True)]
    with database.read() as connection:
        assert labels.counts(connection, holed) == LabelCounts(1, 1, 1, 1)


# ── labels that count ──


def test_the_majority_of_several_people_counts(database: Database, model: Model, ids: list[int]) -> None:
    """With equal votes there is no label."""
    votes = st.dictionaries(
        st.tuples(st.sampled_from(range(3)), st.sampled_from([1, 2]), st.sampled_from(["ann", "bob", "cid"])),
        st.booleans(),
    )

    @thoroughly
    @given(votes)
    def check(said: dict[tuple[int, int, str], bool]) -> None:
        with database.write() as connection:
            connection.execute(delete(table))
            for (image, tag_id, by), is_right in said.items():
                labels.save(connection, model, ids[image], tag_id, is_right, by=by, drawn=Drawn.RANDOM)
        sums: dict[tuple[int, int], int] = {}
        for (image, tag_id, _by), is_right in said.items():
            sums[image, tag_id] = sums.get((image, tag_id), 0) + (1 if is_right else -1)
        expected: dict[int, dict[int, bool]] = {}
        for (image, tag_id), total in sums.items():
            if total:
                expected.setdefault(ids[image], {})[tag_id] = total > 0
        mine: dict[int, dict[int, bool]] = {}
        for (image, tag_id, by), is_right in said.items():
            if by == "bob":
                mine.setdefault(ids[image], {})[tag_id] = is_right
        with database.read() as connection:
            found = labels.of_images(connection, model, ids)
            assert found == expected
            assert {type(verdict) for one in found.values() for verdict in one.values()} <= {bool}
            assert labels.of_images(connection, model, ids, by="bob") == mine
            assert labels.of_images(connection, model, ids[:1]) == {
                key: value for key, value in expected.items() if key == ids[0]
            }
            assert labels.of_images(connection, model, []) == {}
            every = labels.every(connection, model)
        flat = [(image, tag, verdict) for image in sorted(expected) for tag, verdict in sorted(expected[image].items())]
        columns = (every.image_ids.tolist(), every.tag_ids.tolist(), every.right.tolist())
        assert list(zip(*columns, strict=True)) == flat
        for tag_id in (1, 2):
            assert of_tag(database, model, tag_id) == [
                (image, ROWS[ids.index(image)].get(tag_id, NOT_STORED), verdict)
                for image, tag, verdict in flat
                if tag == tag_id
            ]

    check()


def test_a_label_serves_every_model_that_has_the_tag(
    database: Database, model: Model, other_model: Model, ids: list[int]
) -> None:
    """It is read with the score of each model. Only images that the model has tagged count."""
    store(database, other_model, URIS[:1], [{1: 200}])
    judge(database, model, ids[0], 1, True)
    judge(database, model, ids[1], 1, False)
    assert of_tag(database, model, 1) == [(ids[0], 9000, True), (ids[1], 3000, False)]
    assert of_tag(database, other_model, 1) == [(ids[0], 200, True)]
    with database.read() as connection:
        assert labels.of_images(connection, other_model, ids) == {ids[0]: {1: True}, ids[1]: {1: False}}
        assert labels.counts(connection, other_model) == labels.counts(connection, model) == LabelCounts(2, 2, 1, 1)


def test_labels_outlive_the_model_and_go_with_the_image(
    database: Database, model: Model, other_model: Model, ids: list[int]
) -> None:
    judge(database, model, ids[0], 1, True)
    judge(database, model, ids[1], 1, True)
    with database.write() as connection:
        connection.execute(delete(models_table).where(models_table.c.id == model.id))
        connection.execute(text(f"delete from images where id = {ids[1]}"))  # noqa: S608
    (row,) = stored(database)
    assert (row.image_id, row.model_id, row.score) == (ids[0], None, 9000)
    with database.read() as connection:
        assert labels.of_images(connection, other_model, ids) == {ids[0]: {1: True}}


def test_a_label_of_another_version_of_the_file_does_not_count(
    database: Database, model: Model, other_model: Model, ids: list[int]
) -> None:
    """A label of the present file does not count for scores of the old file either."""
    store(database, other_model, URIS, ROWS)
    judge(database, model, ids[0], 1, True)
    with database.write() as connection:
        images.register(connection, [Reference(URIS[0], "2", 10)], model.id)
        assert labels.of_images(connection, model, ids) == {}
        assert labels.counts(connection, model) == LabelCounts(0, 0, 0, 0)
        assert labels.people(connection, model) == {}
        connection.execute(predictions.update().where(predictions.c.model_id == model.id).values(image_version="2"))
    assert of_tag(database, model, 1) == []
    judge(database, model, ids[0], 1, False)
    assert of_tag(database, model, 1) == [(ids[0], 9000, False)]
    assert of_tag(database, other_model, 1) == []
    with database.read() as connection:
        assert labels.every(connection, model).image_ids.tolist() == [ids[0]]
        assert labels.every(connection, other_model).image_ids.tolist() == []


def test_it_is_told_how_much_was_judged_by_whom_and_how(database: Database, model: Model, ids: list[int]) -> None:
    for number, (image, tag_id, by) in enumerate([(0, 1, "bob"), (0, 2, "ann"), (1, 1, "ann"), (1, 1, "bob")]):
        judge(database, model, ids[image], tag_id, True, by, drawn=Drawn.LINE if number else Drawn.RANDOM)
    with database.read() as connection:
        assert labels.counts(connection, model) == LabelCounts(labels=4, images=2, tags=2, people=2)
        assert labels.people(connection, model) == {"ann": 2, "bob": 2}
        assert labels.every(connection, model).drawn == {"line": 3, "random": 1}
