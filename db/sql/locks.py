"""Locks of rows and of names on PostgreSQL. SQLite has one writer at a time and needs neither."""

from typing import Any

from sqlalchemy import Connection, Select, Table, text


def lock_rows(
    connection: Connection, query: Select[Any], *, of: Table | None = None, key_share: bool = False
) -> Select[Any]:
    """The query with a lock on the rows that it finds, until the end of the transaction.

    Args:
        query: must be ordered, so that two transactions lock rows in the same order and there is no deadlock.
        of: lock only the rows of this table.
        key_share: let other transactions insert rows that refer to the locked ones.
    """
    if connection.dialect.name == "postgresql":
        return query.with_for_update(of=of, key_share=key_share)
    return query


def try_lock_name(connection: Connection, number: int) -> bool:
    """Take the lock of a number until the end of the transaction, unless another transaction has it.

    Returns:
        Whether this transaction has it; True on SQLite.
    """
    query = text("select pg_try_advisory_xact_lock(:number)")
    return connection.dialect.name != "postgresql" or bool(connection.scalar(query, {"number": number}))


def lock_name(connection: Connection, number: int) -> None:
    """Wait for the lock of a number, and hold it until the end of the transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("select pg_advisory_xact_lock(:number)"), {"number": number})
