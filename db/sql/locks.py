"""Locks. PostgreSQL locks rows and names; SQLite has one writer at a time, which is all that is needed there."""

from typing import Any

from sqlalchemy import Connection, Select, Table, text


def lock_rows(
    connection: Connection, query: Select[Any], *, of: Table | None = None, key_share: bool = False
) -> Select[Any]:
    """The query, which locks the rows it finds until the end of the transaction.

    Args:
        query: ordered, so that two transactions lock the same rows in the same order and there is no deadlock.
        of: lock the rows of this table alone.
        key_share: other transactions may still insert rows that refer to these.
    """
    if connection.dialect.name == "postgresql":
        return query.with_for_update(of=of, key_share=key_share)
    return query


def lock_name(connection: Connection, number: int) -> None:
    """Wait until no other transaction holds the lock of this number, then hold it until the end of this one."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("select pg_advisory_xact_lock(:number)"), {"number": number})
