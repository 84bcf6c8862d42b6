"""The rows that workers write about themselves, and `tagonce status`, which reads them."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from db.database import Database
from db.ledger import deliveries, workers
from db.ledger.models import Model
from db.ledger.workers import Stage, Work, Worker
from db.schema import workers as table
from tests.fixtures.command import Outcome

Register = Callable[..., list[int]]

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ONE = Worker("gpu-1:17", "NVIDIA H100 bfloat16", STARTED)
WORK = Work(
    seconds={Stage.FETCH: 8.0, Stage.DECODE: 16.0, Stage.WAIT: 0.5, Stage.INFER: 45.0, Stage.WRITE: 2.0},
    images=dict.fromkeys(Stage, 1_000),
    duplicates=24,
    active_seconds=50.0,
)


def seen(database: Database, model: Model) -> list[tuple[Worker, Work]]:
    with database.read() as connection:
        return workers.seen_since(connection, model.id, datetime.now(UTC) - timedelta(minutes=1))


def test_a_worker_has_one_row_and_the_last_word_stands(database: Database, model: Model, other_model: Model) -> None:
    with database.write() as connection:
        workers.save(connection, model.id, ONE, replace(WORK, duplicates=0))
        workers.save(connection, model.id, ONE, WORK)
        workers.save(connection, model.id, replace(ONE, name="gpu-0:3"), WORK)
    assert seen(database, model) == [(replace(ONE, name="gpu-0:3"), WORK), (ONE, WORK)]
    assert seen(database, other_model) == []


def test_who_ended_long_ago_is_forgotten(database: Database, model: Model) -> None:
    with database.write() as connection:
        workers.save(connection, model.id, ONE, WORK)
        workers.save(connection, model.id, replace(ONE, name="gpu-0:3"), WORK)
        ago = datetime.now(UTC) - workers.FORGOTTEN_AFTER - timedelta(seconds=1)
        connection.execute(update(table).where(table.c.name == ONE.name).values(seen_at=ago))
        workers.forget_old(connection)
        connection.execute(update(table).values(seen_at=datetime.now(UTC)))
    assert [worker.name for worker, _ in seen(database, model)] == ["gpu-0:3"]


def test_status_shows_the_split_and_who_is_busy(
    invoke: Callable[..., Outcome], database: Database, database_url: str, model: Model
) -> None:
    with database.write() as connection:
        workers.save(connection, model.id, ONE, WORK)
        workers.save(connection, model.id, replace(ONE, name="gpu-0:3"), replace(WORK, active_seconds=150.0))
    shown = " ".join(invoke("status", "--database", database_url).out.split())
    assert "an image takes fetch 8.0 ms, decode 16.0 ms, wait 0.5 ms, infer 45.0 ms, write 2.0 ms" in shown
    assert "device busy 45% of the time with work" in shown
    assert "gpu-0:3 30% of the time with work NVIDIA H100 bfloat16 gpu-1:17 90%" in shown
    assert "duplicates 48 in the last minute" in shown
    devices = invoke("status", "--json", "--database", database_url).json["devices"]
    assert [(one["worker"], one["busy"]) for one in devices] == [("gpu-0:3", 0.3), ("gpu-1:17", 0.9)]
    assert devices[0]["seconds_an_image"]["decode"] == 0.016


@pytest.mark.parametrize(
    "case",
    [
        (True, 5, None, False, False),  # busy, as long as the queue was not flushed
        (False, 5, None, True, True),  # it had a chunk, which is done
        (True, 3_600, None, True, True),  # it died with its chunk, or the message was lost
        (True, None, None, True, True),
        (True, 3_600, 5, True, False),  # the chunk may be of another model
    ],
)
def test_chunks_held_by_workers_are_not_sent_again_after_redis_was_flushed(
    invoke: Callable[..., Outcome],
    database: Database,
    database_url: str,
    model: Model,
    other_model: Model,
    registered: Register,
    redis_url: str,
    case: tuple[bool, int | None, int | None, bool, bool],
) -> None:
    """Redis is empty, and a lease is two minutes. Parameters: whether a delivery is counted; seconds since a worker of
    the model, and one of another model, were seen; whether pending images are sent; whether the count is deleted.
    """
    counted, ours, others, sends, forgets = case
    registered(10)
    with database.write() as connection:
        if counted:
            deliveries.count(connection, "x")
        for name, of, ago in (("one", model, ours), ("two", other_model, others)):
            if ago is not None:
                workers.save(connection, of.id, replace(ONE, name=name), WORK)
                seen_at = datetime.now(UTC) - timedelta(seconds=ago)
                connection.execute(update(table).where(table.c.name == name).values(seen_at=seen_at))
    where = ("--database", database_url, "--broker", redis_url, "--model", model.name)
    sent = invoke("enqueue", "--pending", "--if-idle", "--json", *where)
    assert sent.json == {"seen": 10 * sends, "sent": 10 * sends}
    with database.read() as connection:
        assert deliveries.any_counted(connection) == (counted and not forgets)
