"""Long results as streams, as fast as each database gives them."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Select, text

from db.sql.driver_errors import as_sqlalchemy_errors


def plan_for_all_rows(connection: Connection) -> None:
    """For the rest of this transaction, PostgreSQL plans to read a stream to its end.

    By default it plans a cursor for its first rows, and it assumes that two tags occur together in next to no image: it
    then compared each image found with every image there is, which took 80 times as long.
    """
    if connection.dialect.name == "postgresql":
        # This statement itself must use no cursor, whatever was streamed before.
        options = {"stream_results": False}
        connection.execute(text("set local cursor_tuple_fraction = 1.0"), execution_options=options)


def stream_column(connection: Connection, query: Select[Any], rows_at_once: int) -> Iterator[Any]:
    """The only column of a query, in any order. Its value is `bytea` on PostgreSQL."""
    return (
        _copied(connection, query)
        if connection.dialect.name == "postgresql"
        else _selected(connection, query, rows_at_once)
    )


def _copied(connection: Connection, query: Select[Any]) -> Iterator[Any]:
    # With a cursor the server idles while a batch is on its way. With COPY it runs ahead.
    literal = query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    statement = f"copy ({literal}) to stdout (format binary)"
    driver = connection.connection.driver_connection
    with (
        as_sqlalchemy_errors(connection, statement),
        driver.cursor() as cursor,  # type: ignore[union-attr]  # None only of a closed connection
        cursor.copy(statement) as copy,
    ):
        copy.set_types(["bytea"])
        for (packed,) in copy.rows():
            yield packed


def _selected(connection: Connection, query: Select[Any], rows_at_once: int) -> Iterator[Any]:
    with connection.execute(query, execution_options={"yield_per": rows_at_once}) as result:
        yield from result.scalars()
