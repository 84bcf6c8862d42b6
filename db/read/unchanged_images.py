"""How many images change when the threshold of several tags moves together, from tables that one pass fills.

An image changes between the thresholds a and b, a < b, where it has a score in [a, b) of one of the tags. With tables
of the scores of each tag alone that cannot be told, since an image with two such scores would count twice.

The distinct scores of an image, ascending, with one sentinel below and one above all scores, make pairs of neighbours
(x, y); G[x, y] counts the images that have that pair. Where no score lies in [a, b), the last one below a and the first
one at or above b are neighbours, and no other pair of that image has x < a and y >= b; where a score does lie there, it
stands between any such x and y, and no pair has. So the sum of G over x < a, y >= b is the number of images that
do not change, and with sums kept in both directions it is read in one place.

Scores count at steps of 0.01, so that a table has a hundred rows; a and b are multiples of it, and nothing is rounded.
"""

import numpy as np

from db.read.score_stream import ScoreBatch
from db.read.tag_batches import Int64Array
from db.schema import Int16Array
from db.scores import NEVER, SCALE

STEP = 100
"""Ten-thousandths between two thresholds that a table knows."""
LEVELS = SCALE // STEP + 1
"""Of scores: [0, 0.01), [0.01, 0.02), ..., and 1 itself."""
WIDTH = LEVELS + 2
"""Rows of a table: the levels, and a sentinel at either end."""

MOST_CATEGORIES = 50
"""Those with higher numbers have no table of their own: the memory for counting grows with them."""

_ALL = 0
"""The table of all tags."""
_SHIFT = 7
"""2 ** 7 places are room for a row of a table, and shifting is faster than dividing."""


class UnchangedCounter:
    """Fills the table of all tags, which is the first one, and that of each category, one for the rest of them.

    Args:
        categories: (tags,) the number of each tag's category, from 0.
    """

    def __init__(self, categories: Int16Array) -> None:
        self._categories = np.minimum(categories, MOST_CATEGORIES).astype(np.int64)
        self._tables = int(self._categories.max(initial=0)) + 2
        self._pairs = np.zeros(self._tables * WIDTH * WIDTH, dtype=np.int64)

    def add(self, batch: ScoreBatch) -> None:
        """Count some images with all their scores."""
        images = len(batch)
        present = np.zeros((self._tables, images << _SHIFT), dtype=np.bool_)
        places = (batch.rows << _SHIFT) + (batch.scores // STEP + 1)
        if self._tables > _ALL + 2:
            places += self._categories[batch.tag_ids] * (images << _SHIFT)
        present[_ALL + 1 :].reshape(-1)[places] = True
        present[_ALL + 1 :].any(axis=0, out=present[_ALL])
        ends = present.reshape(self._tables, images, 1 << _SHIFT)
        ends[:, :, 0] = ends[:, :, WIDTH - 1] = True
        found = np.flatnonzero(present)
        rows, levels = found >> _SHIFT, found & ((1 << _SHIFT) - 1)
        pairs = (rows[:-1] // max(images, 1) * WIDTH + levels[:-1]) * WIDTH + levels[1:]
        self._pairs += np.bincount(pairs, minlength=self._pairs.size)

    def tables(self) -> Int64Array:
        """(tables, WIDTH, WIDTH) the pairs summed: at [table, i, j] those of row i or before and column j or after."""
        pairs = self._pairs.reshape(self._tables, WIDTH, WIDTH).copy()
        # From the end of an image to the beginning of the next one, which are no neighbours.
        pairs[:, WIDTH - 1, 0] = 0
        return np.ascontiguousarray(pairs.cumsum(axis=1)[:, :, ::-1].cumsum(axis=2)[:, :, ::-1])


def level_of(score: int, floor: int) -> int | None:
    """The level that a threshold stands right below; None where it stands within one.

    Args:
        floor: of the model. There is no score below it, so it may stand anywhere.
    """
    if score >= NEVER:
        return LEVELS
    return score // STEP if score % STEP == 0 or score == floor else None


def without(table: Int64Array, low: int, high: int) -> int:
    """Images that have no score at the levels low to high, the latter not included."""
    return int(table[low, high + 1])
