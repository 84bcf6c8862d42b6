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


def rows_reaching(
    tag_ids: Sequence[bytes], scores: Sequence[bytes], low: int
) -> tuple[Int64Array, Int32Array, Int16Array]:
    """The tags of many rows at or above a score.

    Args:
        tag_ids: (rows,) blobs of one width.
        scores: (rows,) blobs with equally many numbers.

    Returns:
        (rows,) the number of these tags in each row, then the tag ids of all rows and their scores, in the order of the
        blobs.
    """
    found = _scores(scores)
    kept = np.flatnonzero(found >= _encoded(low))
    counts = np.diff(np.searchsorted(kept, _ends(scores)), prepend=0)
    data = np.frombuffer(b"".join(tag_ids), dtype=np.uint8)
    width = data.size // max(found.size, 1)
    # One pass for each byte of a number: gathering whole numbers as rows of bytes took ten times as long.
    numbers = data[::width][kept].astype(np.int32) & 0x7F if kept.size else np.zeros(0, dtype=np.int32)
    for position in range(1, width if kept.size else 1):
        numbers = numbers << 7 | data[position::width][kept]
    words = found[kept]
    return counts, numbers, ((words >> 8 & 0x7F) << 7 | words & 0x7F).astype(np.int16)


def _scores(blobs: Sequence[bytes]) -> npt.NDArray[np.uint16]:
    """The scores of all blobs as they are stored. They compare like the numbers."""
    return np.frombuffer(b"".join(blobs), dtype=">u2")


def _encoded(score: int) -> int:
    return int.from_bytes(encode_one(score, NARROW))


def _ends(scores: Sequence[bytes]) -> Int64Array:
    """(rows,) where the numbers of each row end."""
    return np.cumsum(np.fromiter(map(len, scores), dtype=np.int64, count=len(scores))) // NARROW
