"""PostgreSQL's binary `smallint[]` to and from numpy arrays. Needs no driver.

Format: PostgreSQL `src/backend/utils/adt/arrayfuncs.c`, `array_send`. Big-endian int32: number of dimensions, null
flag, oid of the element type; then per dimension its length and lower bound; then per element its length in bytes,
followed by the bytes.
"""

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from db.arrays.types import Int16Array, Int32Array

INT2_OID = 21

_HEADER = struct.Struct("!iiiii")
_EMPTY = struct.pack("!iii", 0, 0, INT2_OID)
_LENGTH_BYTES = 4
_ELEMENT = np.dtype([("length", ">i4"), ("value", ">i2")])


def to_bytes(array: Int16Array) -> bytes:
    """Encode a one-dimensional int16 array."""
    if not array.size:
        return _EMPTY
    elements = np.empty(array.size, dtype=_ELEMENT)
    elements["length"] = 2
    elements["value"] = array
    return _HEADER.pack(1, 0, INT2_OID, array.size, 1) + elements.tobytes()


def from_bytes(data: bytes | bytearray | memoryview) -> Int16Array:
    """Decode one array, of one dimension or empty."""
    if len(data) <= len(_EMPTY):
        return np.empty(0, dtype=np.int16)
    return np.frombuffer(data, dtype=_ELEMENT, offset=_HEADER.size)["value"].astype(np.int16)


def split_pairs(pairs: Sequence[bytes]) -> tuple[npt.NDArray[np.int64], Int32Array, Int16Array]:
    """Decode many pairs of arrays of equal length.

    Args:
        pairs: the bytes of the two arrays of each pair, concatenated.

    Returns:
        (pairs,) the length of the arrays of each pair, then the elements of all first and of all second arrays.
    """
    sizes = np.fromiter(map(len, pairs), dtype=np.int64, count=len(pairs))
    halves = sizes // 2
    lengths = (halves - _HEADER.size).clip(0) // _ELEMENT.itemsize
    # Headers, lengths of elements and elements all have even sizes: every offset is a multiple of two bytes.
    words = np.frombuffer(b"".join(pairs), dtype=">i2")
    firsts = np.cumsum(sizes) - sizes + _HEADER.size + _LENGTH_BYTES
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    positions = (np.repeat(firsts, lengths) + within * _ELEMENT.itemsize) // 2
    first, second = words[positions], words[positions + np.repeat(halves // 2, lengths)]
    return lengths, first.astype(np.int32), second.astype(np.int16)
