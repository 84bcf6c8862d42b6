"""PostgreSQL's binary COPY format, made for many rows at once. Needs no driver.

Format: PostgreSQL's manual, COPY, "Binary Format". A header; per row the number of fields as int16, then per field its
length as int32 and its bytes; at the end -1 as int16. All integers are big-endian.
"""

import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_INT8 = struct.Struct("!q")
_INT4 = struct.Struct("!i")
_INT2 = struct.Struct("!h")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def body(columns: Sequence[Sequence[bytes]]) -> bytes:
    """All that is sent for `copy ... from stdin (format binary)`.

    Args:
        columns: equally long; the values of each in PostgreSQL's binary format, none of them null.
    """
    number = struct.pack("!h", len(columns))
    parts = [_HEADER]
    lengths = [list(map(_INT4.pack, map(len, column))) for column in columns]
    for row in zip(*(part for pair in zip(lengths, columns, strict=True) for part in pair), strict=True):
        parts.append(number)
        parts += row
    parts.append(_TRAILER)
    return b"".join(parts)


def bigints(values: Sequence[int]) -> list[bytes]:
    """The column of a `bigint`."""
    return list(map(_INT8.pack, values))


def integers(values: Sequence[int]) -> list[bytes]:
    """The column of an `integer`."""
    return list(map(_INT4.pack, values))


def smallints(values: Sequence[int]) -> list[bytes]:
    """The column of a `smallint`."""
    return list(map(_INT2.pack, values))


def texts(values: Sequence[str]) -> list[bytes]:
    """The column of a `text` or `varchar`."""
    return [value.encode() for value in values]


def times(values: Sequence[datetime]) -> list[bytes]:
    """The column of a `timestamptz`."""
    return bigints([(value - _EPOCH) // timedelta(microseconds=1) for value in values])
