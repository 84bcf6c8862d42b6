"""What is chosen from a pool, and what a pool tells of a collection."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from db import sampling
from db.policy.policies import Cut
from db.read.tag_batches import TagBatch
from db.scores import NEVER, SCALE

TAGS = 5
Rows = list[dict[int, int]]
"""An image each: tag id to score."""

some_rows = st.lists(st.dictionaries(st.integers(0, TAGS - 1), st.integers(0, SCALE)), max_size=8)
some_lines = st.lists(st.sampled_from([3500, 9900, SCALE, NEVER]) | st.integers(0, SCALE), min_size=TAGS, max_size=TAGS)


def pool_of(rows: Rows) -> TagBatch:
    return TagBatch(
        *([10 + place for place in range(len(rows))], [f"s3://b/{place}" for place in range(len(rows))]),
        *([100 + place for place in range(len(rows))], [None] * len(rows)),
        np.cumsum([0, *map(len, rows)], dtype=np.int64),
        np.array([tag for row in rows for tag in row], np.int16),
        np.array([score for row in rows for score in row.values()], np.int16),
    )


def cut_at(lines: list[int], **rules: int) -> Cut:
    return Cut(np.array(lines, np.int16), 0, **rules)


@given(some_rows, st.data())
def test_a_part_of_a_pool_has_its_images_in_the_order_asked_for(rows: Rows, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(range(len(rows))), unique=True)) if rows else []
    part = sampling.part_of(pool_of(rows), chosen)
    expected = pool_of([rows[place] for place in chosen])
    assert part.image_ids == [10 + place for place in chosen]
    assert part.uris == [f"s3://b/{place}" for place in chosen]
    assert part.widths == [100 + place for place in chosen]
    for name in ("offsets", "tag_ids", "scores"):
        np.testing.assert_array_equal(getattr(part, name), getattr(expected, name))


# ── the most different ones ──


@given(some_rows, st.integers(0, 10), st.integers(0, 3))
def test_diverse_images_are_distinct_and_seeded(rows: Rows, n: int, seed: int) -> None:
    pool = pool_of(rows)
    chosen = sampling.diverse(pool, n, seed, TAGS)
    assert len(chosen) == min(n, len(rows))
    assert set(chosen) <= set(range(len(rows)))
    assert len(set(chosen)) == len(chosen)
    assert sampling.diverse(pool, n, seed, TAGS) == chosen


def test_no_two_of_a_kind_are_chosen_while_another_kind_is_left() -> None:
    """Length does not count: {0: 9000} and {0: 300} point the same way. An image without scores is a kind too."""
    kinds: Rows = [{0: 9000}, {1: 8000}, {2: 100, 3: 100}, {4: SCALE}, {}]
    rows = [{tag: score // (1 + copy) for tag, score in kind.items()} for copy in range(20) for kind in kinds]
    for seed in range(20):
        chosen = sampling.diverse(pool_of(rows), len(kinds), seed, TAGS)
        assert {place % len(kinds) for place in chosen} == set(range(len(kinds)))


def test_the_second_one_is_drawn_by_squared_distance() -> None:
    """From {0}, the vectors (0.6, 0.8) and (0, 1) are 0.8 and 2 away, squared."""
    pool = pool_of([{0: 1000}, {0: 600, 1: 800}, {1: 1000}])
    seconds = Counter(chosen[1] for seed in range(6000) if (chosen := sampling.diverse(pool, 2, seed, TAGS))[0] == 0)
    number = seconds.total()
    assert 1800 < number < 2200
    assert abs(seconds[1] / number - 0.8 / 2.8) < 0.05


# ── the undecided ones ──


@given(some_rows, some_lines, st.integers(0, 9), st.none() | st.integers(0, TAGS - 1))
def test_undecided_images_are_those_of_a_loop(rows: Rows, lines: list[int], n: int, tag_id: int | None) -> None:
    ranked = []
    for place, row in enumerate(rows):
        distances = [
            abs(score - lines[tag]) for tag, score in row.items() if lines[tag] != NEVER and tag_id in (None, tag)
        ]
        if distances:
            ranked.append((-sum(one <= 500 for one in distances), min(distances), place))
    expected = [place for *_, place in sorted(ranked)][:n]
    assert sampling.undecided(pool_of(rows), cut_at(lines), n, tag_id) == expected


# ── estimates ──


@given(some_rows, some_lines, some_lines)
def test_a_pool_of_everything_gives_the_truth(rows: Rows, before: list[int], after: list[int]) -> None:
    kept = [[{tag for tag, score in row.items() if score >= lines[tag]} for row in rows] for lines in (before, after)]
    found = sampling.estimate_change(pool_of(rows), cut_at(before), cut_at(after), len(rows))
    changed = sum(one != other for one, other in zip(*kept, strict=True))
    assert (found.images, found.low, found.high) == (changed, changed, changed)
    assert found.gained == sum(len(other - one) for one, other in zip(*kept, strict=True))
    assert found.lost == sum(len(one - other) for one, other in zip(*kept, strict=True))
    assert found.assignments == found.gained + found.lost


def test_rules_that_look_at_other_tags_are_estimated_too() -> None:
    pool = pool_of([{0: 9000, 1: 8000}, {1: 8000}, {}, {0: 9000, 2: 8500}])
    lines = [3500] * TAGS
    found = sampling.estimate_change(pool, cut_at(lines), cut_at(lines, top=1), 4000)
    assert (found.images, found.gained, found.lost) == (2000, 0, 2000)
    assert 500 < found.low < 2000 < found.high < 3500


def test_an_estimate_holds_the_truth_in_most_samples() -> None:
    """95 % of the time, by Wilson; what was seen is never denied."""
    rng = np.random.default_rng(7)
    rows: Rows = [{0: int(score)} for score in rng.integers(0, SCALE, 4000)]
    before, after = cut_at([3500] * TAGS), cut_at([4000] * TAGS)
    changed = sum(3500 <= row[0] < 4000 for row in rows)
    hits = 0
    for _ in range(300):
        pool = pool_of([rows[place] for place in rng.choice(len(rows), 200, replace=False)])
        found = sampling.estimate_change(pool, before, after, len(rows))
        hits += found.low <= changed <= found.high
        assert found.low <= found.images <= found.high
    assert 0.92 <= hits / 300 <= 0.99


def test_an_empty_pool_tells_nothing() -> None:
    lines = [3500] * TAGS
    found = sampling.estimate_change(pool_of([]), cut_at(lines), cut_at(lines), 7)
    assert (found.images, found.low, found.high, found.assignments) == (0, 0, 7, 0)
