"""The number of images that change when the threshold of several tags moves together, from tables filled in one pass.

An image changes between the thresholds a < b if it has a score of one of the tags in [a, b). Counts of each tag alone
do not give this number, since an image with two such scores would count twice.

The distinct scores of an image, in ascending order, with one sentinel below and one above all scores, form pairs of
neighbours (x, y). G[x, y] counts the images that have this pair. If an image has no score in [a, b), its last score
below a and its first score at or above b are neighbours, and no other pair of the image has x < a and y >= b. If it has
a score in [a, b), that score lies between any such x and y, so no pair of the image has x < a and y >= b. Hence the sum
of G over x < a, y >= b is the number of images that do not change. With G summed along both axes, it is one cell.

Scores are counted at steps of 0.01, so that a table has about a hundred rows. a and b are multiples of 0.01, so nothing
is rounded.
"""

import numpy as np

from db.arrays.score_batch import ScoreBatch
from db.arrays.types import Int32Array, Int64Array
from db.scores import NEVER, SCALE

STEP = 100
"""Ten-thousandths between two thresholds of a table."""
LEVELS = SCALE // STEP + 1
"""Levels of scores: [0, 0.01), [0.01, 0.02), ..., and 1 itself."""
WIDTH = LEVELS + 2
"""Rows and columns of a table: the levels, and a sentinel at either end."""

MOST_CATEGORIES = 50
"""Categories with a table of their own. The rest share one, since the memory for counting grows with each table."""

_ALL = 0
"""The table of all tags."""
_SHIFT = 7
"""A row of a table is padded to 2 ** 7 cells, because shifting is faster than dividing."""


class UnchangedCounter:
    """Fills the tables: the first one of all tags, then one of each category, and one of the remaining categories.

    Args:
        categories: (tags,) the number of each tag's category, from 0.
    """

    def __init__(self, categories: Int32Array) -> None:
        self._categories = np.minimum(categories, MOST_CATEGORIES).astype(np.int64)
        self._tables = int(self._categories.max(initial=0)) + 2
        self._pairs = np.zeros(self._tables * WIDTH * WIDTH, dtype=np.int64)

    def add(self, batch: ScoreBatch) -> None:
        """Count images with all their scores."""
        images = len(batch)
        present = np.zeros((self._tables, images << _SHIFT), dtype=np.bool_)
        cells = (batch.rows << _SHIFT) + (batch.scores // STEP + 1)
        if self._tables > _ALL + 2:
            cells += self._categories[batch.tag_ids] * (images << _SHIFT)
        present[_ALL + 1 :].reshape(-1)[cells] = True
        present[_ALL + 1 :].any(axis=0, out=present[_ALL])
        ends = present.reshape(self._tables, images, 1 << _SHIFT)
        ends[:, :, 0] = ends[:, :, WIDTH - 1] = True
        found = np.flatnonzero(present)
        rows, levels = found >> _SHIFT, found & ((1 << _SHIFT) - 1)
        pairs = (rows[:-1] // max(images, 1) * WIDTH + levels[:-1]) * WIDTH + levels[1:]
        self._pairs += np.bincount(pairs, minlength=self._pairs.size)

    @property
    def pairs(self) -> Int64Array:
        """(tables * WIDTH * WIDTH,) images that have each pair. Those of several counters can be added."""
        pairs = self._pairs.copy()
        # Pairs of the end of an image and the beginning of the next one, which are no neighbours.
        pairs.reshape(self._tables, WIDTH, WIDTH)[:, WIDTH - 1, 0] = 0
        return pairs


def tables(pairs: Int64Array) -> Int64Array:
    """(tables, WIDTH, WIDTH) summed pairs: [table, i, j] counts those with a row <= i and a column >= j.

    Args:
        pairs: of an `UnchangedCounter`.
    """
    found = pairs.reshape(-1, WIDTH, WIDTH)
    return np.ascontiguousarray(found.cumsum(axis=1)[:, :, ::-1].cumsum(axis=2)[:, :, ::-1])


def level_of(score: int, floor: int) -> int | None:
    """The level whose lower end is a threshold; None if the threshold is inside a level.

    Args:
        score: the threshold, in ten-thousandths.
        floor: of the model. It may be inside a level, since no score is below it.
    """
    if score >= NEVER:
        return LEVELS
    return score // STEP if score % STEP == 0 or score == floor else None


def without(table: Int64Array, low: int, high: int) -> int:
    """Images that have no score at the levels low to high, high excluded.

    Args:
        table: (WIDTH, WIDTH), one of `tables`.
    """
    return int(table[low, high + 1])
