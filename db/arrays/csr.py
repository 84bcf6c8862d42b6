"""Rows of different lengths in one flat array (CSR): row i has the items from offsets[i] to offsets[i + 1]."""

import numpy as np
import numpy.typing as npt

from db.arrays.types import Int64Array


def offsets_of(sizes: npt.ArrayLike) -> Int64Array:
    """Where rows of these sizes begin and end; of a mask, how many are true before each position.

    Args:
        sizes: (rows,) integers or booleans.

    Returns:
        (rows + 1,) int64, from 0 to the sum.
    """
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def ranges(starts: Int64Array, sizes: Int64Array) -> Int64Array:
    """start, start + 1, ..., start + size - 1 of each row, one row after the other."""
    before = np.cumsum(sizes) - sizes
    steps: Int64Array = np.repeat(starts - before, sizes)
    steps += np.arange(steps.size)
    return steps
