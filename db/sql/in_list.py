"""Lists of values in a statement as one parameter. One for each value takes longer to write and to parse."""

from collections.abc import Sequence

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    LargeBinary,
    Text,
    any_,
    cast,
    func,
    literal,
    select,
    values,
)
from sqlalchemy import column as sql_column


def in_list(connection: Connection, column: Column[int], ids: Sequence[int]) -> ColumnElement[bool]:
    """The condition `column in (ids)`."""
    if connection.dialect.name == "postgresql":
        # An array as PostgreSQL's text literal: psycopg would write it element by element in Python.
        return column == any_(cast(literal("{" + ",".join(map(str, ids)) + "}", Text), ARRAY(BigInteger)))
    rows = func.json_each("[" + ",".join(map(str, ids)) + "]").table_valued("value")
    return column.in_(select(rows.c.value))


def in_hashes(connection: Connection, column: Column[bytes], hashes: Sequence[bytes]) -> ColumnElement[bool]:
    """The condition `column in (hashes)`."""
    if connection.dialect.name == "postgresql":
        return column == any_(literal(list(hashes), ARRAY(LargeBinary)))
    # A CTE, since SQLite can name the columns of VALUES only there. A compound SELECT is limited to 500 terms.
    rows = values(sql_column("sha256", LargeBinary), name="wanted").data([(one,) for one in hashes]).cte("wanted")
    return column.in_(select(rows.c.sha256))
