"""Long results as streams, as fast as each database delivers them."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Select, text

from db.arrays.batches import batched
from db.sql.connection.driver_errors import as_sqlalchemy_errors


def plan_for_all_rows(connection: Connection) -> None:
    """For the rest of this transaction, PostgreSQL plans to read a stream to its end.

    By default it optimises a cursor for the first rows, and it assumes that two tags occur together in almost no image:
    it then compared each image found with all images, which took 80 times as long.
    """
    if connection.dialect.name == "postgresql":
        # This statement itself must not use a cursor, even if the connection streams.
        options = {"stream_results": False}
        connection.execute(text("set local cursor_tuple_fraction = 1.0"), execution_options=options)


def plan_with_indexes(connection: Connection) -> None:
    """For the rest of this transaction, PostgreSQL plans to look up keys in an index.

    Before the first `analyze`, it assumes that a list of a few hundred keys finds every row, and reads the table.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("set local enable_seqscan = off"))


def stream_rows(connection: Connection, query: Select[Any], rows_at_once: int) -> Iterator[Sequence[Any]]:
    """The rows of a query, so many at once, in any order. PostgreSQL: the query has one column, a `bytea`."""
    if connection.dialect.name == "postgresql":
        return batched(_copied(connection, query), rows_at_once)
    return stream_in_order(connection, query, rows_at_once)


def stream_in_order(connection: Connection, query: Select[Any], rows_at_once: int) -> Iterator[Sequence[Any]]:
    """The rows of a query, so many at once, as the driver's tuples: SQLAlchemy does not convert their values."""
    with connection.execute(query, execution_options={"stream_results": True}) as result:
        # SQLAlchemy's own rows took longer than the driver. On PostgreSQL it has already fetched the first one.
        rows: Sequence[Any] = result.fetchmany(1)
        if not rows:
            return
        cursor: Any = result.cursor
        with as_sqlalchemy_errors(connection, str(result.context.statement)):
            rows = [*rows, *cursor.fetchmany(rows_at_once - 1)]
            while rows:
                yield rows
                rows = cursor.fetchmany(rows_at_once)


def _copied(connection: Connection, query: Select[Any]) -> Iterator[Any]:
    # With a cursor the server idles while a batch is being transferred. With COPY it runs ahead.
    literal = query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    statement = f"copy ({literal}) to stdout (format binary)"
    driver = connection.connection.driver_connection
    with (
        as_sqlalchemy_errors(connection, statement),
        driver.cursor() as cursor,  # type: ignore[union-attr]  # None only for a closed connection
        cursor.copy(statement) as copy,
    ):
        copy.set_types(["bytea"])
        yield from copy.rows()
