"""PostgreSQL: images are deleted, or registered in a new version, while a worker writes their results."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, delete, select, text, true

from db.database import Database
from db.errors import TransientError
from db.ledger import images, results
from db.ledger.forget import forget
from db.ledger.models import Model
from db.ledger.results import Prediction
from db.schema import files, predictions
from db.schema import images as image_table
from tests.fixtures.scores import NO_SCORES

Register = Callable[..., list[int]]

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

WAITING = text("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'")


def save(connection: Connection, model: Model, ids: list[int], version: str = "1") -> None:
    done = [Prediction(one, version, 10, 640, 480, "jpeg", bytes(32), NO_SCORES) for one in ids]
    results.save(connection, model.id, done, [])


def stored(connection: Connection) -> tuple[list[int], list[int]]:
    """Images of predictions, and of rows of files."""
    return tuple(
        list(connection.scalars(select(table.c.image_id).order_by(table.c.image_id))) for table in (predictions, files)
    )  # type: ignore[return-value]


def wait_until_blocked(database: Database, other: Future[object]) -> None:
    """Return when a transaction waits for a lock of another one."""
    for _ in range(1_000):
        with database.read() as connection:
            if connection.scalar(WAITING):
                return
        if other.done():
            break
        time.sleep(0.01)
    pytest.fail("No transaction waits for another one.")


def test_forget_waits_for_the_chunk_of_a_worker_and_deletes_it(
    database: Database, model: Model, registered: Register
) -> None:
    ids = registered(3)
    with ThreadPoolExecutor(1) as pool:
        with database.write() as connection:
            save(connection, model, ids)
            deleting: Future[object] = pool.submit(forget, database, true(), keep_labels=False)
            wait_until_blocked(database, deleting)
        assert deleting.result(30) == 3
    with database.read() as connection:
        assert stored(connection) == ([], [])


def test_a_chunk_waits_for_forget_and_leaves_out_what_is_deleted(
    database: Database, model: Model, registered: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = registered(3)
    deleted, written = threading.Event(), threading.Event()

    def pause(_connection: Connection, _ids: object) -> None:
        deleted.set()
        assert written.wait(30)

    def write() -> None:
        with database.write() as connection:
            save(connection, model, ids)

    monkeypatch.setattr("db.ledger.gone.mark", pause)  # the last step before the images are deleted
    with ThreadPoolExecutor(2) as pool:
        deleting = pool.submit(forget, database, image_table.c.id < ids[2], keep_labels=True)
        assert deleted.wait(30)
        writing: Future[object] = pool.submit(write)
        wait_until_blocked(database, writing)
        written.set()
        assert deleting.result(30) == 2
        writing.result(30)
    with database.read() as connection:
        assert stored(connection) == (ids[2:], ids[2:])


def test_plain_sql_that_deletes_an_image_makes_the_worker_try_again(
    database: Database, model: Model, registered: Register
) -> None:
    """Nothing of the first attempt is stored, and the second one leaves the image out."""
    ids = registered(3)

    def write() -> None:
        with database.write() as connection:
            save(connection, model, ids)

    with ThreadPoolExecutor(1) as pool:
        with database.write() as connection:
            connection.execute(delete(image_table).where(image_table.c.id == ids[1]))
            writing: Future[object] = pool.submit(write)
            wait_until_blocked(database, writing)
        with pytest.raises(TransientError, match="deleted .* by plain SQL"):
            writing.result(30)
    with database.read() as connection:
        assert stored(connection) == ([], [])
    write()
    with database.read() as connection:
        assert stored(connection) == ([ids[0], ids[2]], [ids[0], ids[2]])


def test_a_version_that_is_registered_while_an_older_result_is_written_is_pending(
    database: Database, model: Model, registered: Register
) -> None:
    ids = registered(3)
    with ThreadPoolExecutor(1) as pool:
        with database.write() as connection:
            save(connection, model, ids)
            registering: Future[object] = pool.submit(registered, 3, version="2")
            wait_until_blocked(database, registering)
        assert registering.result(30) == ids
    with database.write() as connection:
        save(connection, model, ids)  # the same chunk by another worker, late
        assert images.pending_after(connection, model.id, 0, 9) == ids
        save(connection, model, ids[1:], version="2")
        assert images.pending_after(connection, model.id, 0, 9) == ids[:1]


def test_a_writer_sees_what_it_waited_for_under_any_default_of_the_server(
    database: Database, database_url: str, model: Model, registered: Register
) -> None:
    """A snapshot from before the wait would not show the rows of the other worker, which would be inserted twice."""
    ids = registered(3)
    option = "options=-c%20default_transaction_isolation%3Dserializable"
    other = Database(f"{database_url}{'&' if '?' in database_url else '?'}{option}")

    def write(to: Database) -> None:
        with to.write() as connection:
            save(connection, model, ids)

    with ThreadPoolExecutor(1) as pool:
        with database.write() as connection:
            save(connection, model, ids)
            writing: Future[object] = pool.submit(write, other)
            wait_until_blocked(database, writing)
        writing.result(30)
    other.close()
