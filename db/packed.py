"""int16 arrays to and from PostgreSQL's binary `smallint[]`, without a Python object per element.

Format: PostgreSQL `src/backend/utils/adt/arrayfuncs.c`, `array_send`. Big-endian int32 each: dimensions, null flag,
element type oid, then per dimension length and lower bound, then per element its length in bytes and the bytes.
"""

import struct

import numpy as np
from psycopg import Connection
from psycopg.adapt import Buffer, Dumper, Loader
from psycopg.pq import Format

from db.schema import Int16Array

INT2_OID = 21
INT2_ARRAY_OID = 1005

_HEADER = struct.Struct("!iiiii")
_EMPTY = struct.pack("!iii", 0, 0, INT2_OID)
_ELEMENT = np.dtype([("length", ">i4"), ("value", ">i2")])


class _SmallintArrayDumper(Dumper):
    format = Format.BINARY
    oid = INT2_ARRAY_OID

    def dump(self, obj: Int16Array) -> Buffer:
        if not obj.size:
            return _EMPTY
        elements = np.empty(obj.size, dtype=_ELEMENT)
        elements["length"] = 2
        elements["value"] = obj
        return _HEADER.pack(1, 0, INT2_OID, obj.size, 1) + elements.tobytes()


class _SmallintArrayLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> Int16Array:
        if len(data) <= len(_EMPTY):
            return np.empty(0, dtype=np.int16)
        return np.frombuffer(data, dtype=_ELEMENT, offset=_HEADER.size)["value"].astype(np.int16)


class _SmallintArrayTextLoader(Loader):
    """The same for results that come as text, `{1,2,3}`, which is what plain queries get."""

    format = Format.TEXT

    def load(self, data: Buffer) -> Int16Array:
        inner = bytes(data)[1:-1]
        if not inner:
            return np.empty(0, dtype=np.int16)
        return np.array(inner.split(b","), dtype=np.int16)


def register(connection: Connection[object]) -> None:
    """Teach one connection to take and give `smallint[]` as numpy int16 arrays."""
    connection.adapters.register_dumper(np.ndarray, _SmallintArrayDumper)
    connection.adapters.register_loader(INT2_ARRAY_OID, _SmallintArrayLoader)
    connection.adapters.register_loader(INT2_ARRAY_OID, _SmallintArrayTextLoader)
