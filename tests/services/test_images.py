"""Images are registered once, and pending until they have a result of their version."""

import random
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, func, insert, select, text

from db.database import Database
from db.errors import Reason
from db.ledger import images, results
from db.ledger.images import Reference
from db.ledger.models import Model
from db.ledger.results import Failure, Prediction
from db.schema import files
from db.schema import images as table
from db.sql.current_file import is_file_of
from tests.fixtures.scores import NO_SCORES

Register = Callable[..., list[int]]
InThreads = Callable[[int, Callable[[int, threading.Barrier], None]], None]


def references(uris: Sequence[str], version: str = "1") -> list[Reference]:
    return [Reference(uri, version, 10) for uri in uris]


def prediction(image_id: int, version: str = "1") -> Prediction:
    return Prediction(image_id, version, 10, 640, 480, "jpeg", b"h" * 32, NO_SCORES)


def uris_of(connection: Connection, ids: Sequence[int]) -> list[str]:
    found = {row.id: row.uri for row in connection.execute(select(table).where(table.c.id.in_(ids)))}
    return [found[one] for one in ids]


def count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def test_registering_twice_is_registering_once(database: Database, model: Model) -> None:
    """The rows and ids are the same, and the images are still pending. New ids are in the order of uris."""
    found = references(["s3://b/c", "s3://b/a", "s3://b/b"])
    with database.write() as connection:
        first = images.register(connection, found, model.id)
        assert uris_of(connection, first) == ["s3://b/a", "s3://b/b", "s3://b/c"]
    with database.write() as connection:
        before = connection.execute(select(table)).all()
        assert images.register(connection, found, model.id) == first
        assert connection.execute(select(table)).all() == before


def test_nothing_found_is_nothing_registered(database: Database, model: Model) -> None:
    with database.write() as connection:
        assert images.register(connection, [], model.id) == []


def test_times_are_in_utc_and_know_it(database: Database, registered: Register) -> None:
    before = datetime.now(UTC)
    registered(1)
    with database.read() as connection:
        assert before <= connection.execute(select(table.c.added_at)).scalar_one() <= datetime.now(UTC)


def test_of_duplicates_in_a_batch_the_last_one_counts(database: Database, model: Model) -> None:
    found = [Reference("s3://b/a", "1", 1), Reference("s3://b/b", "1", 1), Reference("s3://b/a", "2", 2)]
    with database.write() as connection:
        ids = images.register(connection, found, model.id)
        assert uris_of(connection, ids) == ["s3://b/a", "s3://b/b"]
        row = connection.execute(select(table.c.version, table.c.bytes).where(table.c.uri == "s3://b/a")).one()
        assert tuple(row) == ("2", 2)


def test_a_predicted_image_is_pending_again_only_when_its_version_changes(
    database: Database, model: Model, registered: Register
) -> None:
    """What is known of the old file is ignored."""
    facts = select(files.c.width, files.c.height, files.c.format, files.c.sha256, files.c.bytes)
    facts = facts.join_from(table, files, is_file_of())
    (image_id,) = registered(1)
    with database.write() as connection:
        results.save(connection, model.id, [prediction(image_id)], [])
        assert tuple(connection.execute(facts).one()) == (640, 480, "jpeg", b"h" * 32, 10)
    assert registered(1) == []
    assert registered(1, version="2") == [image_id]
    with database.write() as connection:
        assert connection.execute(facts).all() == []
        results.save(connection, model.id, [prediction(image_id, "2")], [])
    assert registered(1, version="2") == []
    assert registered(1, version="1") == [image_id]


def test_a_failed_image_is_not_pending_until_its_version_changes(
    database: Database, model: Model, registered: Register
) -> None:
    (image_id,) = registered(1)
    with database.write() as connection:
        results.save(connection, model.id, [], [Failure(image_id, "1", Reason.CORRUPT, "x")])
    assert registered(1) == []
    assert registered(1, version="2") == [image_id]


def test_what_is_pending_is_pending_for_one_model(
    database: Database, model: Model, other_model: Model, registered: Register
) -> None:
    ids = registered(3)
    with database.write() as connection:
        results.save(connection, model.id, [prediction(ids[0])], [Failure(ids[1], "1", Reason.MISSING, "")])
        for one, left in ((model, ids[2:]), (other_model, ids)):
            assert images.pending_after(connection, one.id, 0, 10) == left
            assert [row.id for row in images.pending_among(connection, ids, one.id)] == left
            assert images.count_pending(connection, one.id) == len(left)


def test_pending_among_gives_what_a_worker_needs_in_the_order_of_ids(
    database: Database, model: Model, registered: Register
) -> None:
    """Each id once; ids that do not exist are left out."""
    ids = registered(3)
    with database.read() as connection:
        found = images.pending_among(connection, [ids[2], ids[0], ids[2], 10**6], model.id)
    assert found == [images.Image(ids[0], "s3://b/0000", "1", 10), images.Image(ids[2], "s3://b/0002", "1", 10)]


def test_more_than_either_database_takes_parameters(database: Database, model: Model) -> None:
    """The limit is 32,766 on SQLite and 65,535 on PostgreSQL. Some images are done, some are of unknown size."""
    uris = [f"s3://c/{number}" for number in range(70_000)]
    random.Random(0).shuffle(uris)
    found = [Reference(uri, "1", None if number % 3 else number * 2**20) for number, uri in enumerate(uris)]
    with database.write() as connection:
        done = images.register(connection, found[1_000:2_000], model.id)
        results.save(connection, model.id, [prediction(one) for one in done], [])
        ids = images.register(connection, found, model.id)
        assert len(set(ids)) == images.count_pending(connection, model.id) == 69_000
        rows = {row.id: row for row in connection.execute(select(table))}
        assert len(rows) == 70_000
        assert ids == sorted(ids)
        assert {(rows[one].uri, rows[one].bytes) for one in ids} == {
            (one.uri, one.bytes) for one in found[:1_000] + found[2_000:]
        }


def test_sizes_may_all_be_unknown(database: Database, model: Model) -> None:
    """As in a list whose files are all missing."""
    with database.write() as connection:
        (one,) = images.register(connection, [Reference("file:///gone.jpg", "", None)], model.id)
        assert images.pending_among(connection, [one], model.id) == [images.Image(one, "file:///gone.jpg", "", None)]


def test_a_version_that_comes_back_is_done_as_it_was(database: Database, model: Model, registered: Register) -> None:
    """The prediction of the version before the last still exists, and is valid again."""
    (image_id,) = registered(1)
    with database.write() as connection:
        results.save(connection, model.id, [prediction(image_id)], [])
    assert registered(1, version="2") == [image_id]
    assert registered(1, version="1") == []


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_a_walk_over_all_that_is_pending_meets_each_exactly_once(
    database: Database, model: Model, registered: Register, limit: int
) -> None:
    """Also if the images found are done meanwhile."""
    ids = registered(50)
    done, failed = ids[::3], ids[1::3]
    met: list[int] = []
    with database.write() as connection:
        results.save(
            connection, model.id, list(map(prediction, done)), [Failure(one, "1", Reason.TIMEOUT, "") for one in failed]
        )
        while found := images.pending_after(connection, model.id, met[-1] if met else 0, limit):
            assert len(found) <= limit
            results.save(connection, model.id, [prediction(found[0])], [])
            met += found
    assert met == ids[2::3]


def test_names_are_kept_as_they_are(database: Database, model: Model) -> None:
    """S3 keys can have any characters. Case, accents and trailing blanks distinguish images."""
    uris = [
        "s3://b/É",
        "s3://b/e\u0301",
        "s3://b/a",
        "s3://b/A",
        "s3://b/a ",
        "s3://b/%41",
        "s3://b/🐈'\"\\",
        "s3://b/",
    ]
    with database.write() as connection:
        ids = images.register(connection, references(uris), model.id)
        assert uris_of(connection, ids) == sorted(uris)


# ── concurrency ──


def test_two_producers_with_the_same_new_images(database: Database, model: Model, in_threads: InThreads) -> None:
    """Overlapping lists in opposite order cause no deadlock and no duplicate."""
    uris = [f"s3://b/{number}" for number in range(1_500)]
    random.Random(0).shuffle(uris)

    def produce(number: int, barrier: threading.Barrier) -> None:
        mine = uris[:1_000] if number else uris[:499:-1]
        for start in range(0, len(mine), 250):
            barrier.wait(30)
            with database.write() as connection:
                images.register(connection, references(mine[start : start + 250]), model.id)

    in_threads(2, produce)
    with database.read() as connection:
        assert count(connection) == 1_500
        assert len(images.pending_after(connection, model.id, 0, 2_000)) == 1_500


def test_registering_again_while_workers_write(database: Database, model: Model, in_threads: InThreads) -> None:
    """A producer writes in the order of uris, a worker in that of ids. Here the two orders differ: no deadlock."""
    now = datetime.now(UTC)
    uris = [f"s3://b/{number:04}" for number in range(400)]
    with database.write() as connection:
        rows = [{"uri": uri, "version": "1", "added_at": now} for uri in reversed(uris)]
        connection.execute(insert(table), rows)
        ids = images.pending_after(connection, model.id, 0, 1_000)

    def work(number: int, barrier: threading.Barrier) -> None:
        for turn in range(6):
            barrier.wait(30)
            with database.write() as connection:
                if number:
                    images.register(connection, references(uris, version=str(turn // 2 + 1)), model.id)
                else:
                    results.save(connection, model.id, [prediction(one, str(turn // 2 + 1)) for one in ids], [])

    in_threads(2, work)
    with database.read() as connection:
        assert count(connection) == 400


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_producer_that_finds_nothing_changed_waits_for_nobody(database: Database, registered: Register) -> None:
    """An upsert without a change would still lock its row. Here a worker holds the locks of all rows."""
    ids = registered(3)
    with database.write() as worker, database.engine.connect() as producer:
        worker.execute(select(table.c.id).with_for_update())
        producer.execute(text("set lock_timeout = '3s'"))
        assert images.register(producer, references([f"s3://b/{number:04}" for number in range(3)]), 1) == ids


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_what_is_pending_in_a_chunk_is_found_by_key_also_before_the_first_analyze(
    database: Database, model: Model, registered: Callable[..., list[int]]
) -> None:
    """PostgreSQL counts the rows read: a few of 3,000 images with results, where a join reads all."""
    ids = registered(3_000)
    with database.write() as connection:
        results.save(connection, model.id, [prediction(one) for one in ids[10:]], [])
    database.close()  # a new connection has read nothing yet
    reads = text(
        "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) from pg_stat_xact_user_tables "
        "where relname in ('images', 'predictions', 'failures')"
    )
    with database.read() as connection:
        assert [one.id for one in images.pending_among(connection, ids[:20], model.id)] == ids[:10]
        assert connection.scalar(reads) < 200
