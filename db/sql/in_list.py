"""Lists of values in a statement: one array on PostgreSQL, where parsing a parameter a value is slow."""

from collections.abc import Sequence

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    FromClause,
    LargeBinary,
    Text,
    any_,
    cast,
    column,
    func,
    literal,
    values,
)


def in_list(connection: Connection, column: Column[int], ids: Sequence[int]) -> ColumnElement[bool]:
    """`column in (ids)`."""
    if connection.dialect.name == "postgresql":
        # PostgreSQL's own spelling of an array: psycopg would write it element by element in Python.
        return column == any_(cast(literal("{" + ",".join(map(str, ids)) + "}", Text), ARRAY(BigInteger)))
    return column.in_(ids)


def hash_rows(connection: Connection, hashes: Sequence[bytes]) -> FromClause:
    """A relation with a column `sha256`."""
    if connection.dialect.name == "postgresql":
        rows = func.unnest(literal(list(hashes), ARRAY(LargeBinary))).table_valued("sha256", name="wanted")
        # With its column named in SQL, or `wanted.sha256` is the function sha256() of `wanted`.
        return rows.render_derived()
    # VALUES with a name for its column, which SQLite has in `with` alone. A compound SELECT has 500 terms at most.
    return values(column("sha256", LargeBinary), name="wanted").data([(one,) for one in hashes]).cte("wanted")
