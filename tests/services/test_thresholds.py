"""Every policy keeps of the stored scores exactly what a plain loop keeps, on both databases."""

from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, func, select, text

from db.database import Database
from db.errors import ModelError
from db.ledger import models, results
from db.ledger.models import Model, Tag
from db.ledger.results import Prediction
from db.policy.policies import Cut, Policy, resolve
from db.read.comparison import compare
from db.read.tag_batches import IMAGES_AT_ONCE, TagBatch, read_tag_batches
from db.read.tag_counts import tag_counts
from db.schema import predictions, tag_scores
from db.scores import NEVER, SCALE, Scores
from tests.fixtures.examples import up_to

Register = Callable[..., list[int]]
Rows = list[dict[int, int]]
"""Tag id to score, one dictionary per image."""

IMAGES, TAGS, FLOOR = 4, 20, 100

# Few distinct scores, including the ends of the range, so that ties and scores equal to a threshold are common.
some_scores = st.sampled_from([FLOOR, FLOOR + 1, 3499, 3500, 3501, SCALE - 1, SCALE]) | st.integers(FLOOR, SCALE)
some_rows = st.lists(st.dictionaries(st.integers(0, TAGS - 1), some_scores), min_size=IMAGES, max_size=IMAGES)

thoroughly = hypothesis_settings(
    max_examples=up_to(25), deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)


def ascending(row: dict[int, int]) -> Scores:
    """The scores in the order of workers: ascending, ties by tag id."""
    tags = np.array(sorted(row, key=lambda tag: (row[tag], tag)), np.int16)
    return Scores(tags, np.array([row[tag] for tag in tags.tolist()], np.int16))


def store(connection: Connection, model: Model, ids: list[int], rows: Rows) -> None:
    done = [
        Prediction(image_id, "1", 10, 640, 480, "jpeg", b"h" * 32, ascending(row))
        for image_id, row in zip(ids, rows, strict=True)
    ]
    results.save(connection, model.id, done, [])


Ranked = list[tuple[int, int]]
"""(tag id, score) by descending score, ties by tag id."""


def ranked(row: dict[int, int]) -> Ranked:
    return sorted(row.items(), key=lambda pair: (-pair[1], pair[0]))


def straight(row: dict[int, int], cut: Cut) -> Ranked:
    """The tags of an image that a policy keeps, by a plain loop."""
    kept = [(tag, score) for tag, score in ranked(row) if score >= cut.scores[tag]]
    if cut.mcut is not None:
        above = set()
        for category in set(cut.mcut.tolist()):
            above |= above_the_gap([pair for pair in ranked(row) if cut.mcut[pair[0]] == category], cut, category)
        kept = [pair for pair in kept if pair in above]
    if cut.groups is not None:
        number_of = cut.groups.tolist()
        best: dict[int, int] = {}
        for tag, _score in kept:
            best.setdefault(number_of[tag], tag)
        kept = [(tag, score) for tag, score in kept if number_of[tag] < 0 or best[number_of[tag]] == tag]
    return kept[: cut.top]


def above_the_gap(stored: Ranked, cut: Cut, category: int) -> set[tuple[int, int]]:
    """MCut by its paper, in one category. The scores that are not stored count as one more score at the floor."""
    assert cut.mcut is not None
    complete = len(stored) == (cut.mcut == category).sum()
    values = [score for _tag, score in stored] + ([] if complete else [cut.floor])
    gaps = [high - low for high, low in pairwise(values)]
    return set(stored[: gaps.index(max(gaps)) + 1] if gaps else stored)


def pairs_of(batch: TagBatch) -> list[Ranked]:
    tags, scores, ends = batch.tag_ids.tolist(), batch.scores.tolist(), batch.offsets.tolist()
    whole = list(zip(tags, scores, strict=True))
    return [whole[start:end] for start, end in pairwise(ends)]


some_cuts = some_scores | st.just(NEVER)
some_policies = st.builds(
    Policy,
    default=st.none() | some_cuts,
    categories=st.dictionaries(st.just("general"), some_cuts),
    tags=st.dictionaries(st.sampled_from([f"tag_{number:02}" for number in range(TAGS)]), some_cuts, max_size=6),
    top=st.none() | st.integers(1, 5),
    mcut=st.booleans(),
    best_of=st.sampled_from([None, ("general",)]),
)


def test_every_policy_keeps_what_a_straight_loop_keeps(database: Database, model: Model, registered: Register) -> None:
    """All images are returned in the order of registration, including those that keep no tag."""
    ids = registered(IMAGES)
    tags = _tags(database, model)

    @thoroughly
    @given(some_rows, st.lists(some_policies, min_size=1, max_size=3))
    def check(rows: Rows, policies: list[Policy]) -> None:
        with database.write() as connection:
            store(connection, model, ids, rows)
        with database.read() as connection:
            for policy in policies:
                cut = resolve(model, tags, policy)
                (batch,) = read_tag_batches(connection, model, cut)
                assert list(batch.image_ids) == ids
                assert pairs_of(batch) == [straight(row, cut) for row in rows]

    check()


def test_every_threshold_keeps_what_it_should(database: Database, model: Model, registered: Register) -> None:
    """At each stored score, one above it, at the floor and at 1."""
    ids = registered(IMAGES)
    tags = _tags(database, model)

    @thoroughly
    @given(some_rows)
    def check(rows: Rows) -> None:
        with database.write() as connection:
            store(connection, model, ids, rows)
        present = {score for row in rows for score in row.values()}
        with database.read() as connection:
            for score in sorted((present | {one + 1 for one in present} | {FLOOR, SCALE}) - {NEVER}):
                cut = resolve(model, tags, Policy(score))
                assert cut.uniform == score
                (batch,) = read_tag_batches(connection, model, cut)
                expected = [straight(row, cut) for row in rows]
                assert pairs_of(batch) == expected

    check()


def test_a_batch_says_which_image_each_tag_is_of(database: Database, model: Model, registered: Register) -> None:
    ids = registered(3)
    with database.write() as connection:
        store(connection, model, ids, [{3: 500, 1: 500, 9: 500, 7: 9000, 2: 100}, {}, {5: 300}])
        (batch,) = read_tag_batches(connection, model, resolve(model, _tags(database, model), Policy(FLOOR)))
    assert batch.tag_ids.tolist() == [7, 1, 3, 9, 2, 5]
    assert batch.scores.tolist() == [9000, 500, 500, 500, 100, 300]
    assert batch.rows.tolist() == [0, 0, 0, 0, 0, 2]
    assert batch.offsets.tolist() == [0, 5, 5, 6]
    assert (batch.uris[0], batch.widths[0], batch.heights[0]) == ("s3://b/0000", 640, 480)


def test_batches_are_bounded_and_in_order(database: Database, model: Model, registered: Register) -> None:
    """One more image than two batches hold. A condition or a prefix selects images."""
    number = IMAGES_AT_ONCE * 2 + 1
    ids = registered(number)
    with database.write() as connection:
        store(connection, model, ids, [{position % TAGS: FLOOR + position} for position in range(number)])
        cut = resolve(model, _tags(database, model), Policy(FLOOR))
        batches = list(read_tag_batches(connection, model, cut))
        assert [len(batch) for batch in batches] == [IMAGES_AT_ONCE, IMAGES_AT_ONCE, 1]
        assert [one for batch in batches for one in batch.image_ids] == ids
        assert [score for batch in batches for score in batch.scores.tolist()] == [FLOOR + one for one in range(number)]
        some = list(read_tag_batches(connection, model, cut, where=predictions.c.image_id.in_(ids[5:8])))
        assert [list(batch.image_ids) for batch in some] == [ids[5:8]]
        some = list(read_tag_batches(connection, model, cut, under="s3://b/000"))
        assert [list(batch.image_ids) for batch in some] == [ids[:10]]
        assert list(read_tag_batches(connection, model, cut, under="s3://nowhere")) == []


def test_a_stream_that_nobody_reads_to_its_end_leaves_the_connection_usable(
    database: Database, model: Model, registered: Register
) -> None:
    ids = registered(IMAGES_AT_ONCE + 1)
    with database.write() as connection:
        store(connection, model, ids, [{1: 5000}] * len(ids))
    with database.read() as connection:
        stream = read_tag_batches(connection, model, resolve(model, _tags(database, model)))
        assert len(next(stream)) == IMAGES_AT_ONCE
        stream.close()  # type: ignore[attr-defined]
        assert connection.scalar(select(func.count()).select_from(predictions)) == len(ids)


def test_the_relations_for_people_hold_what_was_stored(
    database: Database, model: Model, other_model: Model, registered: Register
) -> None:
    """`tag_scores`, `tag_probabilities` and `tag_images` have the same rows on both databases, each model its own."""
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
            by_tag = [tuple(row) for row in connection.execute(text("select * from tag_images"))]
        assert sorted(stored) == sorted(expected)
        name = {model.id: "tiny", other_model.id: "other"}
        assert sorted((*row[:5], round(float(row[6]) * SCALE)) for row in shown) == sorted(
            (one, name[one], image_id, f"s3://b/{ids.index(image_id):04}", f"tag_{tag:02}", score)
            for one, image_id, tag, score in expected
        )
        assert sorted((*row[:3], *row[4:7], round(float(row[7]) * SCALE)) for row in by_tag) == sorted(
            (one, tag, f"tag_{tag:02}", image_id, f"s3://b/{ids.index(image_id):04}", score, score)
            for one, image_id, tag, score in expected
        )
        assert {row[4]: row[5] for row in shown}.items() <= {
            f"tag_{tag:02}": "general" if tag % 2 else None for tag in range(TAGS)
        }.items()

    check()


def test_tags_are_counted(database: Database, model: Model, other_model: Model, registered: Register) -> None:
    """Most frequent first, with the mean probability of the images counted. Scores of another model do not count."""
    ids = registered(IMAGES)
    tags = _tags(database, model)

    @thoroughly
    @given(some_rows, some_policies | st.builds(Policy, default=st.sampled_from([FLOOR, 3500, SCALE])))
    def check(rows: Rows, policy: Policy) -> None:
        cut = resolve(model, tags, policy)
        values = defaultdict(list)
        for row in rows:
            for tag, value in straight(row, cut):
                values[tag].append(value)
        with database.write() as connection:
            store(connection, model, ids, rows)
            store(connection, other_model, ids, [{1: SCALE}] * IMAGES)
            found = tag_counts(connection, model, cut)
            streamed = tag_counts(connection, model, cut, under="s3://b/")
        expected = sorted(values, key=lambda tag: (-len(values[tag]), tag))
        assert [(one.tag, one.category, one.images) for one in found] == [
            (tags[tag].name, tags[tag].category, len(values[tag])) for tag in expected
        ]
        for one, tag in zip(found, expected, strict=True):
            assert one.mean_probability == pytest.approx(np.mean(values[tag]) / SCALE, abs=1e-9)
        assert [(one.tag, one.images) for one in streamed] == [(one.tag, one.images) for one in found]

    check()


def test_two_policies_are_compared_as_a_straight_loop_compares_them(
    database: Database, model: Model, registered: Register
) -> None:
    ids = registered(IMAGES)
    tags = _tags(database, model)

    @thoroughly
    @given(some_rows, some_policies, some_policies)
    def check(rows: Rows, first: Policy, second: Policy) -> None:
        with database.write() as connection:
            store(connection, model, ids, rows)
            cuts = [resolve(model, tags, policy) for policy in (first, second)]
            found = compare(connection, model, *cuts)
        sides = [[{tag for tag, _score in straight(row, cut)} for row in rows] for cut in cuts]
        assert found.images == IMAGES
        assert found.changed == sum(one != other for one, other in zip(*sides, strict=True))
        for tag in range(TAGS):
            has = [(tag in one, tag in other) for one, other in zip(*sides, strict=True)]
            counted = (int(found.kept[tag]), int(found.gained[tag]), int(found.lost[tag]))
            assert counted == (has.count((True, True)), has.count((False, True)), has.count((True, False)))
        changes = [int(found.gained[tag] + found.lost[tag]) for tag in found.by_change]
        assert changes == sorted(changes, reverse=True)
        assert sum(changes) == int((found.gained + found.lost).sum())

    check()


def _tags(database: Database, model: Model) -> list[Tag]:
    with database.read() as connection:
        return models.tag_names(connection, model.id)


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
        with pytest.raises(ModelError, match=r"has no model 'n' \(known: m, m, m, m, m\)"):
            models.find(connection, "n")


def test_more_tags_than_the_database_numbers_are_refused(database: Database) -> None:
    with database.write() as connection, pytest.raises(ModelError, match="big has 131,073 tags; .* at most 131,072"):
        models.register(
            connection,
            name="big",
            weights_sha256="",
            spec={},
            tag_list=[Tag("a")] * 131_073,
            floor=0,
            default_threshold=0,
        )


def test_a_database_without_a_model_says_what_to_do(database: Database) -> None:
    with database.read() as connection, pytest.raises(ModelError, match="no model yet. Tag images first"):
        models.latest(connection)
