"""Inserts many rows by binary COPY. PostgreSQL only."""

from collections.abc import Sequence

from sqlalchemy import Connection

from db.sql.connection.driver_errors import as_sqlalchemy_errors
from db.sql.formats import copy_format


def copy(connection: Connection, into: str, columns: Sequence[Sequence[bytes]]) -> None:
    """Insert rows, which are sent as one buffer: psycopg's `write_row` takes longer than the server.

    Args:
        into: the table and the names of its columns, `table (one, other)`.
        columns: equally long; their values in binary, by the functions of `db.sql.formats.copy_format`.
    """
    statement = f"copy {into} from stdin (format binary)"
    driver = connection.connection.driver_connection
    with (
        as_sqlalchemy_errors(connection, statement),
        driver.cursor() as cursor,  # type: ignore[union-attr]  # None only for a closed connection
        cursor.copy(statement) as writer,
    ):
        writer.write(copy_format.body(columns))
