"""Thresholds over stored scores: what SQL keeps is what numpy keeps, at every score and on both databases."""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, select, text

from db import models, results
from db.database import Database
from db.errors import ModelError, ThresholdError
from db.export import tagged_images
from db.models import Model, Tag
from db.results import Prediction
from db.schema import predictions, tag_scores
from db.scores import SCALE, Scores
from db.thresholds import images_at, score_for, tag_counts_at

Register = Callable[..., list[int]]
Rows = list[dict[int, int]]
"""An image each: tag id to score."""

IMAGES, TAGS, FLOOR = 4, 20, 100

# Few distinct scores, and the ends of the range, so that ties and hits right on a threshold are common.
some_scores = st.sampled_from([FLOOR, FLOOR + 1, 3499, 3500, 3501, SCALE - 1, SCALE]) | st.integers(FLOOR, SCALE)
some_rows = st.lists(st.dictionaries(st.integers(0, TAGS - 1), some_scores), min_size=IMAGES, max_size=IMAGES)

thoroughly = hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)


def ascending(row: dict[int, int]) -> Scores:
    """As workers store it: by score, ties by tag id."""
    tags = np.array(sorted(row, key=lambda tag: (row[tag], tag)), np.int16)
    return Scores(tags, np.array([row[tag] for tag in tags.tolist()], np.int16))


def store(connection: Connection, model: Model, ids: list[int], rows: Rows) -> None:
    done = [
        Prediction(image_id, "1", 10, 640, 480, "jpeg", b"h" * 32, ascending(row))
        for image_id, row in zip(ids, rows, strict=True)
    ]
    results.save(connection, model.id, done, [])


def kept(rows: Rows, score: int) -> list[list[tuple[int, int]]]:
    """(score, tag id) at or above a score, ascending: with numpy, over the whole image."""
    found = []
    for row in rows:
        tags, values = np.array(list(row), int), np.array(list(row.values()), int)
        chosen = values >= score
        found.append(sorted(zip(values[chosen].tolist(), tags[chosen].tolist(), strict=True)))
    return found


def test_every_threshold_keeps_what_numpy_keeps(database: Database, model: Model, registered: Register) -> None:
    """At each stored score, one above it, at the floor and at 1; images that keep nothing are there with nothing."""
    ids = registered(IMAGES)
    names = np.array([tag.name for tag in _tags(database, model)])

    @thoroughly
    @given(some_rows)
    def check(rows: Rows) -> None:
        with database.write() as connection:
            store(connection, model, ids, rows)
        present = {score for row in rows for score in row.values()}
        with database.read() as connection:
            for score in sorted(present | {one + 1 for one in present} | {FLOOR, SCALE}):
                found = connection.execute(images_at(model, score).order_by(predictions.c.image_id)).all()
                assert [row.image_id for row in found] == ids
                pairs = [list(zip(row.kept.scores.tolist(), row.kept.tag_ids.tolist(), strict=True)) for row in found]
                assert pairs == kept(rows, score)
                tagged = list(tagged_images(connection, model, score))
                expected = [{names[tag]: value / SCALE for value, tag in image} for image in pairs]
                assert [one.tags for one in tagged] == expected

    check()


def test_tags_come_by_falling_probability_and_ties_in_the_models_order(
    database: Database, model: Model, registered: Register
) -> None:
    ids = registered(1)
    with database.write() as connection:
        store(connection, model, ids, [{3: 500, 1: 500, 9: 500, 7: 9000, 2: 100}])
        (one,) = tagged_images(connection, model, FLOOR)
    assert list(one.tags) == ["tag_07", "tag_01", "tag_03", "tag_09", "tag_02"]
    assert list(one.tags.values()) == [0.9, 0.05, 0.05, 0.05, 0.01]


def test_the_relations_for_people_hold_what_was_stored(
    database: Database, model: Model, other_model: Model, registered: Register
) -> None:
    """`tag_scores` and `tag_probabilities` say the same on both databases, for each model by itself."""
    ids = registered(IMAGES)

    @thoroughly
    @given(some_rows, some_rows)
    def check(mine: Rows, theirs: Rows) -> None:
        with database.write() as connection:
            connection.execute(delete(predictions))
            store(connection, model, ids, mine)
            store(connection, other_model, ids, theirs)
        expected = {
            (one.id, image_id, tag, score)
            for one, rows in ((model, mine), (other_model, theirs))
            for image_id, row in zip(ids, rows, strict=True)
            for tag, score in row.items()
        }
        with database.read() as connection:
            stored = [tuple(row) for row in connection.execute(select(tag_scores))]
            shown = [tuple(row) for row in connection.execute(text("select * from tag_probabilities"))]
        assert sorted(stored) == sorted(expected)
        name = {model.id: "tiny", other_model.id: "other"}
        assert sorted((*row[:5], round(float(row[6]) * SCALE)) for row in shown) == sorted(
            (one, name[one], image_id, f"s3://b/{ids.index(image_id):04}", f"tag_{tag:02}", score)
            for one, image_id, tag, score in expected
        )
        assert {row[4]: row[5] for row in shown}.items() <= {
            f"tag_{tag:02}": "general" if tag % 2 else None for tag in range(TAGS)
        }.items()

    check()


def test_tags_are_counted_at_a_threshold(
    database: Database, model: Model, other_model: Model, registered: Register
) -> None:
    """Most frequent first, with the mean of what was counted; another model's scores do not count."""
    ids = registered(IMAGES)

    @thoroughly
    @given(some_rows, st.sampled_from([FLOOR, 3500, SCALE]))
    def check(rows: Rows, score: int) -> None:
        values = defaultdict(list)
        for row in rows:
            for tag, value in row.items():
                if value >= score:
                    values[f"tag_{tag:02}"].append(value)
        with database.write() as connection:
            store(connection, model, ids, rows)
            store(connection, other_model, ids, [{1: SCALE}] * IMAGES)
            found = connection.execute(tag_counts_at(model, score)).all()
        assert [(row.tag, row.images) for row in found] == sorted(
            ((tag, len(numbers)) for tag, numbers in values.items()), key=lambda pair: (-pair[1], pair[0])
        )
        for row in found:
            assert row.mean_probability == pytest.approx(np.mean(values[row.tag]) / SCALE, abs=1e-9)

    check()


def _tags(database: Database, model: Model) -> list[Tag]:
    with database.read() as connection:
        return models.tag_names(connection, model.id)


# ── which score a threshold asks for ──


def test_without_a_threshold_the_models_own_counts(model: Model) -> None:
    assert score_for(model, None) == 3500


def test_a_models_own_threshold_below_the_floor_is_the_floor(database: Database) -> None:
    """Somebody stored with a high floor: the default must still be a question that can be answered."""
    with database.write() as connection:
        high = models.register(
            connection,
            name="high",
            weights_sha256="",
            spec={},
            tag_list=[Tag("a")],
            floor=5000,
            default_threshold=2000,
        )
    assert score_for(high, None) == 5000


@pytest.mark.parametrize(("threshold", "score"), [(0.01, 100), ("0.35", 3500), (1, SCALE)])
def test_a_threshold_at_the_floor_or_above_is_answered(model: Model, threshold: float | str, score: int) -> None:
    assert score_for(model, threshold) == score


def test_a_threshold_below_the_floor_is_refused_in_words(model: Model) -> None:
    refused = r"^tiny was stored with a floor of 0\.01: .* so 0\.0099 cannot be answered\. Ask for 0\.01 or more"
    with pytest.raises(ThresholdError, match=refused):
        score_for(model, 0.0099)


# ── models ──


def test_another_floor_weights_or_tags_is_another_model_and_the_same_is_the_same(database: Database) -> None:
    def register(**changes: object) -> Model:
        facts = {"name": "m", "weights_sha256": "a", "spec": {"size": 1}, "tag_list": [Tag("x")], "floor": 100}
        with database.write() as connection:
            return models.register(connection, **(facts | changes), default_threshold=3500)

    first = register()
    others = [
        register(**change)
        for change in ({"weights_sha256": "b"}, {"spec": {"size": 2}}, {"tag_list": [Tag("y")]}, {"floor": 0})
    ]
    assert len({first.id, *(one.id for one in others)}) == 5
    assert register() == first
    with database.read() as connection:
        assert models.find(connection, "m") == models.latest(connection) == others[-1]
        assert models.find(connection, str(first.id)) == first
        assert models.every(connection) == [first, *others]
        assert models.tag_names(connection, others[2].id) == [Tag("y")]
        with pytest.raises(ModelError, match=r"knows no model 'n' \(known: m, m, m, m, m\)"):
            models.find(connection, "n")


def test_more_tags_than_a_smallint_numbers_are_refused(database: Database) -> None:
    with database.write() as connection, pytest.raises(ModelError, match="big has 32768 tags; .* up to 32767"):
        models.register(
            connection,
            name="big",
            weights_sha256="",
            spec={},
            tag_list=[Tag("a")] * 32_768,
            floor=0,
            default_threshold=0,
        )


def test_a_database_without_a_model_says_what_to_do(database: Database) -> None:
    with database.read() as connection, pytest.raises(ModelError, match="no model yet. Tag something first"):
        models.latest(connection)
