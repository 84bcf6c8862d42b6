"""`column in (...)` with hundreds of values: one array on PostgreSQL, so that nobody parses a parameter a value."""

from collections.abc import Sequence

from sqlalchemy import ARRAY, BigInteger, Column, ColumnElement, Connection, Text, any_, cast, literal


def in_list(connection: Connection, column: Column[int], ids: Sequence[int]) -> ColumnElement[bool]:
    """The condition that a column holds one of these ids."""
    if connection.dialect.name == "postgresql":
        # PostgreSQL's own spelling of an array: psycopg would write it element by element in Python.
        return column == any_(cast(literal("{" + ",".join(map(str, ids)) + "}", Text), ARRAY(BigInteger)))
    return column.in_(ids)
