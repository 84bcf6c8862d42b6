"""PostgreSQL's binary `smallint[]`, as numpy reads and writes it. Needs no driver.

Format: PostgreSQL `src/backend/utils/adt/arrayfuncs.c`, `array_send`. Big-endian int32 each: dimensions, null flag,
element type oid, then per dimension length and lower bound, then per element its length in bytes and the bytes.
"""

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from db.schema import Int16Array

INT2_OID = 21

_HEADER = struct.Struct("!iiiii")
_EMPTY = struct.pack("!iii", 0, 0, INT2_OID)
_LENGTH_BYTES = 4
_ELEMENT = np.dtype([("length", ">i4"), ("value", ">i2")])


def to_bytes(array: Int16Array) -> bytes:
    """One array, one-dimensional."""
    if not array.size:
        return _EMPTY
    elements = np.empty(array.size, dtype=_ELEMENT)
    elements["length"] = 2
    elements["value"] = array
    return _HEADER.pack(1, 0, INT2_OID, array.size, 1) + elements.tobytes()


def from_bytes(data: bytes | bytearray | memoryview) -> Int16Array:
    """One array back."""
    if len(data) <= len(_EMPTY):
        return np.empty(0, dtype=np.int16)
    return np.frombuffer(data, dtype=_ELEMENT, offset=_HEADER.size)["value"].astype(np.int16)


def split_pairs(pairs: Sequence[bytes]) -> tuple[npt.NDArray[np.int64], Int16Array, Int16Array]:
    """Many pairs of equally long arrays, the two of a pair one behind the other: (lengths, all first, all second)."""
    sizes = np.fromiter(map(len, pairs), dtype=np.int64, count=len(pairs))
    halves = sizes // 2
    lengths = (halves - _HEADER.size).clip(0) // _ELEMENT.itemsize
    # Headers, lengths of elements and elements all have even sizes: everything lies at a multiple of two bytes.
    words = np.frombuffer(b"".join(pairs), dtype=">i2")
    firsts = np.cumsum(sizes) - sizes + _HEADER.size + _LENGTH_BYTES
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    places = (np.repeat(firsts, lengths) + within * _ELEMENT.itemsize) // 2
    first, second = words[places], words[places + np.repeat(halves // 2, lengths)]
    return lengths, first.astype(np.int16), second.astype(np.int16)
