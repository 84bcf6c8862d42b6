"""Rows of numbers as SQLite stores them: blobs whose order and whose parts plain SQL can find.

A number is two bytes, `0x80 | value >> 7` and `value & 127`, or three, `0x80 | value >> 14` and twice seven bits. Only
the first byte of a number has the high bit, so `instr` finds whole numbers only, and bytes compare like the numbers.
Scores have two bytes. Tag ids have two bytes in models with at most 16,384 tags, and three in larger ones.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from db.arrays.csr import offsets_of
from db.arrays.types import Int16Array, Int32Array, Int64Array

NARROW, WIDE = 2, 3
"""Bytes of a number."""
LIMITS = {NARROW: 1 << 14, WIDE: 1 << 21}
"""The first number that needs more bytes."""

_FIRST = 0x80
"""The high bit of the first byte."""


def encode(rows: Sequence[npt.NDArray[np.integer]], width: int) -> list[bytes]:
    """Each row of numbers as a blob.

    Args:
        rows: arrays of one dimension, 0 to `LIMITS[width]` exclusive.
        width: bytes of a number.
    """
    if not rows:
        return []
    values = np.concatenate(rows).astype(np.int64)
    shifts = np.arange(7 * (width - 1), -1, -7)
    numbers = (values[:, np.newaxis] >> shifts & 0x7F).astype(np.uint8)
    numbers[:, 0] |= _FIRST
    data = numbers.tobytes()
    ends = (offsets_of([row.size for row in rows]) * width).tolist()
    return [data[start:end] for start, end in pairwise(ends)]


@lru_cache(maxsize=4096)
def encode_one(value: int, width: int) -> bytes:
    """One number as a blob."""
    return encode([np.array([value])], width)[0]


def decode(blob: bytes) -> Int64Array:
    """(numbers,) the numbers of a blob of either width."""
    data = np.frombuffer(blob, dtype=np.uint8)
    if (data[::NARROW] >= _FIRST).all():  # of three bytes, every second number would begin at an odd position
        pairs = data.reshape(-1, NARROW).astype(np.int64)
        narrow: Int64Array = (pairs[:, 0] & 0x7F) << 7 | pairs[:, 1]
        return narrow
    starts = np.flatnonzero(data >= _FIRST)
    values: Int64Array = data[starts].astype(np.int64) & 0x7F
    sizes = np.diff(starts, append=data.size)
    for position in range(1, WIDE):
        longer = sizes > position
        values[longer] = values[longer] << 7 | data[starts[longer] + position]
    return values


def split_pairs(pairs: Sequence[bytes]) -> tuple[Int64Array, Int32Array, Int16Array]:
    """Decode many pairs of blobs with equally many numbers.

    Args:
        pairs: the two blobs of each pair, concatenated. All tag ids have the same width.

    Returns:
        (pairs,) the length of each pair's rows, then the numbers of all first and of all second rows.
    """
    joined = b"".join(pairs)
    numbers = decode(joined).astype(np.int32)
    sizes = np.fromiter(map(len, pairs), dtype=np.int64, count=len(pairs))
    # A tag and its score take four bytes, or five.
    lengths = sizes // (len(joined) * 2 // numbers.size) if numbers.size else sizes
    first = np.repeat(np.tile([True, False], lengths.size), np.repeat(lengths, 2))
    return lengths, numbers[first], numbers[~first].astype(np.int16)
