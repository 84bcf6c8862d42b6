"""Identical files under another reference are found by their hash, on both databases."""

import sqlite3
from collections.abc import Callable
from hashlib import sha256

import numpy as np
import pytest
from sqlalchemy import event, text

from db.database import Database
from db.errors import Reason, TransientError
from db.ledger import images, results
from db.ledger.duplicates import stored_results
from db.ledger.models import Model
from db.ledger.results import Failure, Prediction
from db.scores import Scores
from producer.queue.chunks import MAX_IMAGES
from tests.fixtures.scores import NO_SCORES

Register = Callable[..., list[int]]

SCORES = Scores(np.array([7, 2, 3, 0], np.int16), np.array([100, 250, 250, 9_999], np.int16))


def save(database: Database, model: Model, image_id: int, content: bytes, scores: Scores, version: str = "1") -> None:
    with database.write() as connection:
        done = Prediction(image_id, version, 10, 640, 480, "webp", content, scores)
        results.save(connection, model.id, [done], [])


def test_scores_and_facts_come_back_as_they_were_stored(database: Database, model: Model, registered: Register) -> None:
    first, second, third = registered(3)
    save(database, model, first, b"a" * 32, SCORES)
    save(database, model, second, b"a" * 32, SCORES)
    save(database, model, third, b"b" * 32, NO_SCORES)
    with database.read() as connection:
        found = stored_results(connection, model.id, [b"a" * 32, b"b" * 32, b"c" * 32])
    assert set(found) == {b"a" * 32, b"b" * 32}
    one = found[b"a" * 32]
    assert (one.width, one.height, one.format) == (640, 480, "webp")
    assert (one.scores.tag_ids.tolist(), one.scores.scores.tolist()) == ([7, 2, 3, 0], [100, 250, 250, 9_999])
    assert len(found[b"b" * 32].scores) == 0


def test_the_largest_chunk_and_batch_that_may_be_set(database: Database, model: Model, registered: Register) -> None:
    """Every statement about a chunk with the maximum number of images, half of them failures, under the limits of the
    SQLite that Python bundles; Debian's accepts eight times as many parameters.
    """
    if database.dialect == "sqlite":

        @event.listens_for(database.engine, "connect")
        def limit(connection: sqlite3.Connection, _record: object) -> None:
            connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 32_766)

        database.engine.dispose()
    ids = registered(MAX_IMAGES)
    hashes = [sha256(str(image_id).encode()).digest() for image_id in ids]
    half = MAX_IMAGES // 2
    done = [
        Prediction(image_id, "1", 10, 640, 480, "webp", content, SCORES)
        for image_id, content in zip(ids[:half], hashes[:half], strict=True)
    ]
    failed = [Failure(image_id, "1", Reason.CORRUPT, "x") for image_id in ids[half:]]
    with database.write() as connection:
        assert len(images.pending_among(connection, ids, model.id)) == MAX_IMAGES
        for _ in range(2):  # the second call replaces the rows
            results.save(connection, model.id, done, failed)
        assert images.pending_among(connection, ids, model.id) == []
        found = stored_results(connection, model.id, hashes)
    assert set(found) == set(hashes[:half])


def test_another_model_and_a_replaced_file_say_nothing(
    database: Database, model: Model, other_model: Model, registered: Register
) -> None:
    """The result of a file that is registered anew, and not read yet, is still that of its bytes."""
    first, second = registered(2)
    save(database, model, first, b"a" * 32, SCORES)
    save(database, model, second, b"b" * 32, SCORES)
    registered(2, version="2")
    save(database, model, first, b"c" * 32, SCORES, version="2")
    with database.read() as connection:
        assert stored_results(connection, other_model.id, [b"c" * 32]) == {}
        assert set(stored_results(connection, model.id, [b"a" * 32, b"b" * 32, b"c" * 32])) == {b"b" * 32, b"c" * 32}
        assert stored_results(connection, model.id, []) == {}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_each_hash_costs_a_look_into_an_index_also_before_the_first_analyze(
    database: Database, model: Model, registered: Register
) -> None:
    """PostgreSQL counts the rows read: a few of 3,000 images with results, where a bad plan reads all."""
    ids = registered(3_000)
    rows = [Prediction(one, "1", 10, 640, 480, "webp", sha256(str(one).encode()).digest(), NO_SCORES) for one in ids]
    with database.write() as connection:
        results.save(connection, model.id, rows, [])
    reads = text(
        "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) from pg_stat_xact_user_tables "
        "where relname in ('images', 'predictions')"
    )
    database.close()  # a new connection has read nothing yet
    with database.read() as connection:
        assert len(stored_results(connection, model.id, [row.sha256 for row in rows[:20]] + [bytes(32)] * 20)) == 20
        assert connection.scalar(reads) < 200


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_connection_lost_while_rows_are_copied_will_pass(
    database: Database, model: Model, registered: Register
) -> None:
    """No row of the chunk is stored, and the next chunk is written over a new connection."""
    (one,) = registered(1)
    done = Prediction(one, "1", 10, 640, 480, "webp", b"a" * 32, SCORES)

    class Cut(Scores):
        """The server closes the connection when the row is about to be sent."""

        def __getattribute__(self, name: str) -> object:
            if name == "tag_ids":
                with database.write() as other:
                    other.execute(
                        text(
                            "select pg_terminate_backend(pid) from pg_stat_activity "
                            "where datname = current_database() and pid <> pg_backend_pid()"
                        )
                    )
            return super().__getattribute__(name)

    with pytest.raises(TransientError, match="does not answer"), database.write() as connection:
        results.save(
            connection,
            model.id,
            [Prediction(one, "1", 10, 640, 480, "webp", b"a" * 32, Cut(SCORES.tag_ids, SCORES.scores))],
            [],
        )
    with database.write() as connection:
        assert connection.scalar(text("select count(*) from predictions")) == 0
        results.save(connection, model.id, [done], [])
        assert connection.scalar(text("select count(*) from predictions")) == 1
