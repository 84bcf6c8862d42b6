"""The database that tests share is to each of them a new one."""

from contextlib import ExitStack

import psycopg
import pytest

from tests.fixtures.migrated import KeptDatabase

REGISTER = "insert into images (uri, version, added_at) values ('s3://b/1', '1', now()) returning id"


@pytest.fixture
def kept(kept_database: KeptDatabase) -> KeptDatabase:
    kept_database.empty()
    return kept_database


def run(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_rows_are_gone_and_ids_start_at_one(kept: KeptDatabase) -> None:
    before = kept.url
    for _ in range(2):
        assert run(kept.url, REGISTER) == [(1,)]
        run(kept.url, "analyze images")
        kept.empty()
        assert run(kept.url, "select count(*) from pg_stats where tablename = 'images'") == [(0,)]
        assert run(kept.url, "select reltuples from pg_class where relname = 'images'") == [(-1,)]
    assert kept.url == before


@pytest.mark.parametrize(
    "left",
    [
        "create index left_here on files (width)",
        "drop index ix_files_sha256",
        "create table left_here (id integer)",
        "create view left_here as select 1",
        "create schema left_here",
        "create role left_here",
        "alter table images add column left_here integer",
        "alter table files alter column width drop not null",
        "alter table images set (fillfactor = 50)",
        "alter sequence images_id_seq restart with 77",
        "grant select on images to public",
        "alter role postgres set work_mem = '1MB'",
        "update alembic_version set version_num = '9999'",
        "drop table alembic_version",
    ],
)
def test_whatever_else_was_changed_is_not_there_any_more(kept: KeptDatabase, left: str) -> None:
    """Each of these can be done a second time, and leaves the database that the next test gets as it was."""
    look = "select version_num, current_setting('work_mem') from alembic_version"
    before = run(kept.url, look)
    for _ in range(2):
        changed = kept.url
        run(kept.url, left)
        kept.empty()
        assert kept.url != changed
    assert run(kept.url, look) == before
    assert run(kept.url, REGISTER) == [(1,)]


def test_a_connection_that_was_left_open_does_not_reach_the_next_test(kept: KeptDatabase) -> None:
    with ExitStack() as left:
        connection = left.enter_context(psycopg.connect(kept.url))
        connection.execute(REGISTER)
        kept.empty()
        with pytest.raises(psycopg.OperationalError):
            connection.execute(REGISTER)
    assert run(kept.url, REGISTER) == [(1,)]
    kept.empty()
