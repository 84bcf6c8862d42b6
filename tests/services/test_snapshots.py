"""A transaction reads a snapshot, unaffected by concurrent writes."""

from collections.abc import Callable

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError

from db.database import Database, open_database
from db.schema import images


def test_a_read_does_not_see_what_is_committed_meanwhile(
    database: Database, database_url: str, registered: Callable[..., list[int]]
) -> None:
    """The snapshot is of the first statement. The next transaction sees the write, also over a pooled connection."""
    registered(3)
    other = open_database(database_url)
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(images)) == 3
        with other.write() as writing:
            query = select(images.c.version, images.c.added_at).limit(1)
            row = writing.execute(query).mappings().one()
            writing.execute(insert(images).values(uri="s3://b/new", **row))
        assert connection.scalar(select(func.count()).select_from(images)) == 3
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(images)) == 4
    other.close()


def test_after_a_read_a_pooled_connection_writes_and_sees_what_others_commit(migrated_postgres_url: str) -> None:
    """Isolation level and access mode belong to the transaction and do not stay with the connection."""
    database = open_database(migrated_postgres_url)
    levels = "select current_setting('transaction_isolation') || ' ' || current_setting('transaction_read_only')"
    with database.read() as connection:
        assert connection.scalar(text(levels)) == "repeatable read on"
        process = connection.scalar(text("select pg_backend_pid()"))
    with database.write() as connection:
        assert connection.scalar(text("select pg_backend_pid()")) == process
        assert connection.scalar(text(levels)) == "read committed off"
    with pytest.raises(Exception, match="read-only transaction") as failed, database.read() as connection:
        connection.execute(text("create table x (y int)"))
    assert not isinstance(failed.value, DBAPIError)
    with database.write() as connection:
        connection.execute(text("create table x (y int)"))
    database.close()
