"""Adapters by which psycopg exchanges `smallint[]` as numpy int16 arrays, without a Python object per element.

Arrays of tag ids, int32, are sent as `integer[]`; `COPY` sends them as the type of their column.
"""

from typing import Any

import numpy as np
from psycopg import Connection, ServerCursor
from psycopg.abc import DumperKey
from psycopg.adapt import Buffer, Dumper, Loader, PyFormat
from psycopg.pq import Format

from db.arrays.types import Int16Array, Int32Array
from db.sql.formats import array_format

INT2_ARRAY_OID, INT4_ARRAY_OID = 1005, 1007


class _IntegerArrayDumper(Dumper):
    format = Format.BINARY
    oid = INT4_ARRAY_OID

    def dump(self, obj: Int32Array) -> Buffer:
        return array_format.to_bytes(obj, array_format.INT4_OID)


class _SmallintArrayDumper(Dumper):
    format = Format.BINARY
    oid = INT2_ARRAY_OID

    def dump(self, obj: Int16Array) -> Buffer:
        return array_format.to_bytes(obj)

    def get_key(self, obj: Int16Array | Int32Array, format: PyFormat) -> DumperKey:  # noqa: A002, ARG002
        return self.cls if obj.dtype == np.int16 else (self.cls, np.int32)

    def upgrade(self, obj: Int16Array | Int32Array, format: PyFormat) -> Dumper:  # noqa: A002, ARG002
        return self if obj.dtype == np.int16 else _IntegerArrayDumper(self.cls)


class _SmallintArrayLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> Int16Array:
        return array_format.from_bytes(data)


class _SmallintArrayTextLoader(Loader):
    """Loads results in text format, `{1,2,3}`, which is the format of plain queries."""

    format = Format.TEXT

    def load(self, data: Buffer) -> Int16Array:
        inner = bytes(data)[1:-1]
        if not inner:
            return np.empty(0, dtype=np.int16)
        return np.array(inner.split(b","), dtype=np.int16)


class _BinaryServerCursor(ServerCursor[Any]):
    """Streams results in binary format: `bytea` in text format is twice as long, and has to be parsed."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> "_BinaryServerCursor":
        return super().execute(query, params, **{"binary": True} | options)


def register(connection: Connection[Any]) -> None:
    """Configure a connection to exchange `smallint[]` as numpy int16 arrays, and to stream in binary."""
    connection.adapters.register_dumper(np.ndarray, _IntegerArrayDumper)  # for COPY, by its oid
    connection.adapters.register_dumper(np.ndarray, _SmallintArrayDumper)
    connection.adapters.register_loader(INT2_ARRAY_OID, _SmallintArrayLoader)
    connection.adapters.register_loader(INT2_ARRAY_OID, _SmallintArrayTextLoader)
    connection.server_cursor_factory = _BinaryServerCursor
