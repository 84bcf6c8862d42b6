"""Distributions from arrays: gaps against a loop over images, and the file that keeps one."""

from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.arrays.score_batch import ScoreBatch
from db.postings import unchanged_images
from db.read.distribution import CELLS, Distribution, load
from db.scores import NEVER, SCALE

CATEGORIES = [0, 1, 1, 2, 0]
Rows = list[dict[int, int]]
"""An image each: tag id to score."""

some_rows = st.lists(st.dictionaries(st.integers(0, 4), st.integers(0, SCALE)), max_size=6)
some_ends = st.sampled_from([0, 100, 3500, 9900, SCALE, NEVER]) | st.integers(0, 100).map(lambda level: level * 100)


def batch_of(rows: Rows) -> ScoreBatch:
    return ScoreBatch(
        np.array([len(row) for row in rows], np.int64),
        np.array([tag for row in rows for tag in row], np.int16),
        np.array([score for row in rows for score in row.values()], np.int16),
    )


@given(some_rows, st.integers(0, 6), some_ends, some_ends)
def test_images_without_a_score_between_two_thresholds_are_counted_once(
    rows: Rows, first_batch: int, one: int, other: int
) -> None:
    counter = unchanged_images.UnchangedCounter(np.array(CATEGORIES, np.int16))
    counter.add(batch_of(rows[:first_batch]))
    counter.add(batch_of(rows[first_batch:]))
    low, high = sorted((one, other))
    levels = [unchanged_images.level_of(score, 0) for score in (low, high)]
    assert None not in levels
    for number, table in enumerate(unchanged_images.tables(counter.pairs)):
        members = [tag for tag, category in enumerate(CATEGORIES) if number in (0, category + 1)]
        expected = sum(not any(low <= row.get(tag, -1) < high for tag in members) for row in rows)
        assert unchanged_images.without(table, *levels) == expected


def test_a_threshold_within_a_step_is_at_no_level_unless_nothing_lies_below() -> None:
    assert unchanged_images.level_of(3500, 100) == 35
    assert unchanged_images.level_of(3510, 100) is None
    assert unchanged_images.level_of(125, 125) == 1
    assert unchanged_images.level_of(NEVER, 100) == unchanged_images.LEVELS


# ── the file ──


@pytest.fixture
def counted() -> Distribution:
    """Of five tags and no images, but for the array that tells whether it is kept."""
    return Distribution(
        model_id=3,
        fingerprint="f" * 64,
        floor=100,
        images=7,
        counted_at=datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC),
        reaching=np.arange(5 * CELLS, dtype=np.int32).reshape(5, CELLS),
        categories=np.array(CATEGORIES, np.int16),
        unchanged=np.full((4, unchanged_images.WIDTH, unchanged_images.WIDTH), 7),
    )


def test_a_file_gives_back_what_was_saved(counted: Distribution, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "tiny.npz"
    counted.save(path)
    counted.save(path)
    found = load(path)
    assert found is not None
    for field in fields(Distribution):
        before, after = getattr(counted, field.name), getattr(found, field.name)
        np.testing.assert_array_equal(before, after)
        assert type(before) is type(after)
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(counted: Distribution, tmp_path: Path) -> None:
    (tmp_path / "tiny.npz").mkdir()
    with pytest.raises(OSError, match=r"tiny\.npz"):
        counted.save(tmp_path / "tiny.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.npz"]


def test_foreign_files_are_none(counted: Distribution, tmp_path: Path) -> None:
    """Nothing, text, a pickle, another array, another archive, half of a file."""
    path = tmp_path / "tiny.npz"
    assert load(path) is None
    assert load(tmp_path) is None
    counted.save(path)
    whole = path.read_bytes()
    for content in (b"", b"hello", b"\x80\x04K\x01.", whole[: len(whole) // 2], whole[:-10]):
        path.write_bytes(content)
        assert load(path) is None
    with path.open("wb") as file:
        np.save(file, np.arange(3))
    assert load(path) is None
    with path.open("wb") as file:
        np.savez(file, format="another", images=np.arange(3))
    assert load(path) is None
    with path.open("wb") as file:
        np.savez(file, format=np.array([{}], dtype=object))
    assert load(path) is None
