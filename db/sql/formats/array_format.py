"""PostgreSQL's binary `smallint[]` and `integer[]` to and from numpy arrays. Needs no driver.

Format: PostgreSQL `src/backend/utils/adt/arrayfuncs.c`, `array_send`. Big-endian int32: number of dimensions, null
flag, oid of the element type; then per dimension its length and lower bound; then per element its length in bytes,
followed by the bytes.
"""

import struct
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from db.arrays.csr import offsets_of
from db.arrays.types import Int16Array, Int32Array

INT2_OID, INT4_OID = 21, 23

_HEADER = struct.Struct("!iiiii")
_EMPTY = struct.Struct("!iii")
_LENGTH_BYTES = 4
_ELEMENTS = {
    INT2_OID: np.dtype([("length", ">i4"), ("value", ">i2")]),
    INT4_OID: np.dtype([("length", ">i4"), ("value", ">i4")]),
}


def to_bytes(array: npt.NDArray[np.integer], oid: int = INT2_OID) -> bytes:
    """Encode a one-dimensional array; see `encode`."""
    return encode([array], oid)[0]


def encode(rows: Sequence[npt.NDArray[np.integer]], oid: int) -> list[bytes]:
    """Encode many one-dimensional arrays, at least one.

    Args:
        oid: the type of their elements in PostgreSQL.
    """
    values = np.concatenate(rows)
    elements = np.empty(values.size, dtype=_ELEMENTS[oid])
    elements["length"] = elements.dtype["value"].itemsize
    elements["value"] = values
    data = elements.tobytes()
    ends = (offsets_of([row.size for row in rows]) * elements.itemsize).tolist()
    return [
        _HEADER.pack(1, 0, oid, row.size, 1) + data[start:end] if row.size else _EMPTY.pack(0, 0, oid)
        for row, (start, end) in zip(rows, pairwise(ends), strict=True)
    ]


def from_bytes(data: bytes | bytearray | memoryview) -> Int16Array:
    """Decode one `smallint[]`, of one dimension or empty."""
    if len(data) <= _EMPTY.size:
        return np.empty(0, dtype=np.int16)
    return np.frombuffer(data, dtype=_ELEMENTS[INT2_OID], offset=_HEADER.size)["value"].astype(np.int16)


def split_pairs(pairs: Sequence[bytes]) -> tuple[npt.NDArray[np.int64], Int32Array, Int16Array]:
    """Decode many pairs of arrays of equal length.

    Args:
        pairs: the bytes of the two arrays of each pair, concatenated. The first one is `smallint[]` in all pairs, or
            `integer[]` in all; the second one is `smallint[]`.

    Returns:
        (pairs,) the length of the arrays of each pair, then the elements of all first and of all second arrays.
    """
    sizes = np.fromiter(map(len, pairs), dtype=np.int64, count=len(pairs))
    oid = _EMPTY.unpack_from(pairs[0])[2] if pairs else INT2_OID
    first_size, second_size = _ELEMENTS[oid].itemsize, _ELEMENTS[INT2_OID].itemsize
    lengths = (sizes - 2 * _HEADER.size).clip(0) // (first_size + second_size)
    # Headers, lengths of elements and elements all have even sizes: every offset is a multiple of two bytes.
    words = np.frombuffer(b"".join(pairs), dtype=">i2")
    begins = np.cumsum(sizes) - sizes + _HEADER.size + _LENGTH_BYTES
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    firsts = (np.repeat(begins, lengths) + within * first_size) // 2
    seconds = (np.repeat(begins + lengths * first_size + _HEADER.size, lengths) + within * second_size) // 2
    first = words[firsts].astype(np.int32)
    if oid == INT4_OID:
        first = first << 16 | words[firsts + 1].astype(np.int32) & 0xFFFF
    return lengths, first, words[seconds].astype(np.int16)
