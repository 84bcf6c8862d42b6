"""`INSERT ... ON CONFLICT`: both databases support it, and SQLAlchemy has a class for each dialect."""

from typing import TYPE_CHECKING

from sqlalchemy import Connection, Table

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite


def insert_into(connection: Connection, table: Table) -> "postgresql.Insert | sqlite.Insert":
    """An insert of the connection's dialect, with its `on_conflict_do_update`."""
    # Imported here, since the dialect of PostgreSQL imports asyncio, which a command on SQLite does not need.
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)
