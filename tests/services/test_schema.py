"""Migrations create the schema of `db.schema`, on both databases, from several processes at once."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import ARRAY, Connection, LargeBinary, SmallInteger, insert, inspect, select, text

from db import migrate, schema
from db.database import Database, open_database
from db.errors import DatabaseError, SettingsError, TransientError
from db.ledger import images
from db.ledger.images import Reference, stored_version
from tests.fixtures.databases.restored import HEAD

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VIEWS = {"tag_images", "tag_probabilities", "tag_scores"}


def differences(connection: Connection) -> list[Any]:
    """The changes by Alembic from the database to `db.schema`: tables, columns, types, nullability, unique constraints.

    The index on `predicted_at` is only in the migrations: no query refers to it. `wide_tag_ids` is only on
    PostgreSQL, where `tag_ids` may be null instead.
    """
    options = {"compare_type": _compare_type}
    found = compare_metadata(MigrationContext.configure(connection, opts=options), schema.metadata)
    expected = [("remove_index", "ix_predictions_predicted_at")]
    if connection.dialect.name == "postgresql":
        expected += [("remove_column", "wide_tag_ids"), ("modify_nullable", "tag_ids")]
    return [one for one in found if _named(one) not in expected]


def _named(change: Any) -> tuple[str, str]:
    """The kind of a change, and the name of the index or column."""
    if isinstance(change, list):
        return change[0][0], change[0][3]
    return change[0], change[3 if "column" in change[0] else 1].name


def _compare_type(_context: object, _found: object, _wanted: object, found_type: Any, wanted_type: Any) -> bool | None:
    # Alembic cannot compare a type of our own; None lets it compare all other types.
    if not isinstance(wanted_type, schema.SmallintArray) or isinstance(found_type, LargeBinary):
        return None
    return not (isinstance(found_type, ARRAY) and isinstance(found_type.item_type, SmallInteger))


def test_a_new_database_is_what_the_schema_says(database: Database) -> None:
    with database.read() as connection:
        assert differences(connection) == []
        found = inspect(connection)
        for table in schema.metadata.tables.values():
            key = [column.name for column in table.primary_key]
            assert found.get_pk_constraint(table.name)["constrained_columns"] == key
            wanted = {(key.parent.name, key.column.table.name, key.ondelete) for key in table.foreign_keys}
            present = found.get_foreign_keys(table.name)
            assert {
                (key["constrained_columns"][0], key["referred_table"], key["options"].get("ondelete"))
                for key in present
            } == wanted


def test_the_comparison_would_notice(database: Database) -> None:
    """An additional column in the database, and a column of another name."""
    with database.write() as connection:
        connection.execute(text("alter table images add column colour integer"))
        connection.execute(text("alter table files rename column width to breadth"))
        assert {(one[0], one[3].name) for one in differences(connection)} == {
            ("remove_column", "colour"),
            ("remove_column", "breadth"),
            ("add_column", "width"),
        }


def test_the_views_are_there_and_can_be_read(database: Database) -> None:
    with database.read() as connection:
        assert set(inspect(connection).get_view_names()) == VIEWS
        for table in (schema.tag_probabilities, schema.tag_scores):
            assert connection.execute(table.select()).all() == []


def test_opening_again_changes_nothing(database: Database, database_url: str) -> None:
    again = open_database(database_url)
    with again.read() as connection:
        assert differences(connection) == []
    again.close()


def test_threads_may_make_the_same_database_at_once(new_database_url: str) -> None:
    def open_and_close(_number: int) -> str:
        opened = open_database(new_database_url)
        opened.close()
        return opened.dialect

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(open_and_close, range(4)))) == 4


def test_a_database_of_the_first_version_is_brought_forward(new_database_url: str) -> None:
    """Long versions become the stored versions of today, so that no image that is done is pending again."""
    etag = "9b2cf535f27731c974343645a3985328"
    opened = Database(new_database_url)
    with opened.write() as connection:
        migrate.upgrade_in_transaction(connection, to="0001")
        connection.execute(
            insert(schema.images),
            [{"uri": f"s3://b/{version}", "version": version, "added_at": NOW} for version in (etag, "1234567", "")],
        )
        connection.execute(
            insert(schema.models).values(
                name="m", fingerprint="", weights_sha256="", spec={}, floor=0, default_threshold=0, added_at=NOW
            )
        )
        row = {"model_id": 1, "image_id": 1, "image_version": etag, "predicted_at": NOW}
        packed = {"tag_ids": np.array([3], np.int16), "scores": np.array([9], np.int16)}
        connection.execute(insert(schema.predictions).values(row | (packed if opened.dialect == "postgresql" else {})))
        failed = {"model_id": 1, "image_id": 2, "image_version": etag, "reason": "corrupt", "detail": "", "attempts": 1}
        connection.execute(insert(schema.failures).values(failed | {"failed_at": NOW}))
    opened.close()
    opened = open_database(new_database_url)
    with opened.write() as connection:
        assert differences(connection) == []
        versions = list(connection.scalars(select(schema.images.c.version).order_by(schema.images.c.id)))
        assert versions == [stored_version(etag), "1234567", ""]
        assert len(versions[0]) == 7
        for table in (schema.predictions, schema.failures):
            assert list(connection.scalars(select(table.c.image_version))) == [stored_version(etag)]
        assert images.register(connection, [Reference(f"s3://b/{etag}", etag, 1)], 1) == []
    opened.close()


def _revision(url: str) -> str:
    opened = open_database(url)
    with opened.read() as connection:
        revision: str = connection.execute(text("select version_num from alembic_version")).scalar_one()
    opened.close()
    return revision


def test_processes_may_make_the_same_database_at_once(new_database_url: str) -> None:
    """As when a producer and its workers start together on a new database."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(_revision, [new_database_url] * 2)) == [HEAD] * 2


def test_a_migration_that_fails_leaves_nothing_behind(new_database_url: str) -> None:
    """Changes to the schema are part of the transaction, also on SQLite."""
    opened = Database(new_database_url)
    with pytest.raises(RuntimeError, match="after the migration"), opened.write() as connection:
        migrate.upgrade_in_transaction(connection)
        raise RuntimeError("after the migration")
    with opened.read() as connection:
        assert inspect(connection).get_table_names() == []
    opened.close()


def test_a_database_of_a_newer_tagonce_is_refused(database: Database, database_url: str) -> None:
    with database.write() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    with pytest.raises(DatabaseError, match=rf"newer tagonce \(schema 9999; .* {HEAD}\)\. Upgrade this program"):
        open_database(database_url)


def test_a_missing_file_is_not_made_by_a_command_that_only_reads(sqlite_url: str, tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=r"The database .*tags\.db does not exist\. Tag images first"):
        open_database(sqlite_url, create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite:////no/such/folder/tags.db", "sqlite:////proc/tags.db"])
def test_a_file_that_cannot_be_made_is_an_error_in_words(url: str) -> None:
    with pytest.raises(DatabaseError, match=r"unable to open database file.* TAGONCE_DATABASE_URL \(or --database\)"):
        open_database(url)


def test_a_server_that_is_not_there_is_an_error_without_the_password() -> None:
    with pytest.raises(DatabaseError, match="does not answer: .*Is it running, and is TAGONCE_DATABASE_URL") as caught:
        open_database("postgresql://tagonce:s3cret@127.0.0.1:1/tags")
    assert "s3cret" not in str(caught.value)
    assert "tagonce:***@127.0.0.1:1/tags" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("tags.db", "is not a database URL. Examples: sqlite:///tags.db"),
        ("", "is not a database URL"),
        ("mysql://localhost/tags", "PostgreSQL or SQLite, not in 'mysql'"),
        ("sqlite://", "in memory cannot be shared"),
        ("sqlite:///:memory:", "in memory cannot be shared"),
    ],
)
def test_a_wrong_url_is_said_in_words(url: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Database(url)


def test_a_file_that_is_no_database_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "tags.db").write_text("not a database at all, however long it is" * 10)
    for create in (True, False):
        with pytest.raises(DatabaseError, match="file is not a database"):
            open_database(f"sqlite:///{tmp_path / 'tags.db'}", create=create)


def test_reading_makes_no_tables(new_database_url: str) -> None:
    """An empty database stays empty when its status is read."""
    opened = Database(new_database_url)
    with opened.read():  # an SQLite file begins to exist when somebody connects
        pass
    with pytest.raises(DatabaseError, match="no tables of tagonce"):
        open_database(new_database_url, create=False)
    with opened.read() as connection:
        assert inspect(connection).get_table_names() == []
    opened.close()


def test_a_database_that_is_busy_is_worth_waiting_for_and_a_read_only_one_is_not(migrated_sqlite_url: str) -> None:
    opened = open_database(migrated_sqlite_url)
    with pytest.raises(DatabaseError, match="readonly"), opened.write() as connection:
        connection.exec_driver_sql("pragma query_only = on")
        connection.exec_driver_sql("delete from images")
    opened.close()
    opened = Database(migrated_sqlite_url)
    holder = Database(migrated_sqlite_url)
    with holder.write(), pytest.raises(TransientError, match="locked"), opened.read() as connection:
        connection.exec_driver_sql("pragma busy_timeout = 10")
        connection.exec_driver_sql("delete from images")
    opened.close()
    holder.close()


def test_a_worker_does_not_wait_for_ever_for_a_lock(
    migrated_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of a change to a table: like a busy SQLite, it is a TransientError, and the worker tries again."""
    monkeypatch.setattr("db.database.BUSY_TIMEOUT_MS", 100)
    holder, opened = open_database(migrated_postgres_url), Database(migrated_postgres_url)
    opened.limit_waiting_for_locks()
    with holder.write() as held:
        held.execute(text("lock table predictions in share row exclusive mode"))
        with pytest.raises(TransientError, match="lock timeout"), opened.write() as connection:
            connection.execute(text("delete from predictions"))
    opened.close()
    holder.close()


def test_postgresql_asks_whether_its_client_is_still_there(migrated_postgres_url: str) -> None:
    """Over TCP, sooner than its default of two hours; on every connection, also after a rollback."""
    opened = Database(migrated_postgres_url)
    query = text("select source from pg_settings where name like 'tcp_keepalives_%'")
    for _ in range(2):
        with opened.read() as connection:
            assert connection.scalars(query).all() == ["session"] * 3
            connection.rollback()
    opened.close()
