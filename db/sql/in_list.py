"""Lists of values in a statement as one parameter. One for each value takes longer to write and to parse."""

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
    select,
    values,
)


def in_list(connection: Connection, column: Column[int], ids: Sequence[int]) -> ColumnElement[bool]:
    """The condition `column in (ids)`."""
    if connection.dialect.name == "postgresql":
        # An array as PostgreSQL's text literal: psycopg would write it element by element in Python.
        return column == any_(cast(literal("{" + ",".join(map(str, ids)) + "}", Text), ARRAY(BigInteger)))
    rows = func.json_each("[" + ",".join(map(str, ids)) + "]").table_valued("value")
    return column.in_(select(rows.c.value))


def hash_rows(connection: Connection, hashes: Sequence[bytes]) -> FromClause:
    """A relation with a column `sha256`, one row per hash."""
    if connection.dialect.name == "postgresql":
        rows = func.unnest(literal(list(hashes), ARRAY(LargeBinary))).table_valued("sha256", name="wanted")
        # The column is named in SQL, since otherwise `wanted.sha256` is the function sha256() of `wanted`.
        return rows.render_derived()
    # A CTE, since SQLite can name the columns of VALUES only there. A compound SELECT is limited to 500 terms.
    return values(column("sha256", LargeBinary), name="wanted").data([(one,) for one in hashes]).cte("wanted")
