"""Long results as streams, as fast as each database delivers them."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Select, text

from db.sql.driver_errors import as_sqlalchemy_errors


def plan_for_all_rows(connection: Connection) -> None:
    """For the rest of this transaction, PostgreSQL plans to read a stream to its end.

    By default it optimises a cursor for the first rows, and it assumes that two tags occur together in almost no image:
    it then compared each image found with all images, which took 80 times as long.
    """
    if connection.dialect.name == "postgresql":
        # This statement itself must not use a cursor, even if the connection streams.
        options = {"stream_results": False}
        connection.execute(text("set local cursor_tuple_fraction = 1.0"), execution_options=options)


def stream_column(connection: Connection, query: Select[Any], rows_at_once: int) -> Iterator[Any]:
    """The values of the only column of a query, in any order. The column must be `bytea` on PostgreSQL."""
    return (
        _copied(connection, query)
        if connection.dialect.name == "postgresql"
        else _selected(connection, query, rows_at_once)
    )


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
        for (packed,) in copy.rows():
            yield packed


def _selected(connection: Connection, query: Select[Any], rows_at_once: int) -> Iterator[Any]:
    with connection.execute(query, execution_options={"yield_per": rows_at_once}) as result:
        yield from result.scalars()
