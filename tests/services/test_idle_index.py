"""Idle workers update the postings of their model. tests/e2e/test_tag.py has the end of `tagonce tag`."""

import math
from collections.abc import Callable

import pytest
from sqlalchemy import text

from db.database import Database
from db.errors import BrokerError
from db.ledger import changed_blocks
from db.ledger.models import Model
from db.postings.state import read_state
from workers.queue import idle_index
from workers.queue.idle_index import IdleIndex
from workers.queue.watchdog import Watchdog


@pytest.fixture
def watchdog(monkeypatch: pytest.MonkeyPatch) -> Watchdog:
    monkeypatch.setattr(idle_index, "IDLE_SECONDS", 0.0)
    return Watchdog(
        progress=lambda: 0, waiting=lambda: 0, stall_seconds=0, max_idle_seconds=math.inf, stop=lambda: None
    )


@pytest.fixture
def changed(database: Database, model: Model) -> Callable[[], tuple[int, ...]]:
    """Marks two blocks; tells which blocks are changed."""
    with database.write() as connection:
        changed_blocks.mark(connection, model.id, [1, 70_000])

    def read() -> tuple[int, ...]:
        with database.read() as connection:
            return read_state(connection, model.id).changed

    return read


def test_an_idle_worker_builds(
    database: Database, model: Model, watchdog: Watchdog, changed: Callable[[], tuple[int, ...]]
) -> None:
    waiting = 1
    index = IdleIndex(database, model, watchdog, lambda: waiting)
    index.look()
    assert changed() == (0, 1)
    waiting = 0
    with watchdog.working():
        idle_index.IDLE_SECONDS = 1e-9
        index.look()
        assert changed() == (0, 1)
    index.look()
    assert changed() == ()


def test_a_queue_that_does_not_answer_is_no_reason_to_end(
    database: Database, model: Model, watchdog: Watchdog, changed: Callable[[], tuple[int, ...]]
) -> None:
    def waiting() -> int:
        raise BrokerError("Redis does not answer.")

    IdleIndex(database, model, watchdog, waiting).look()
    assert changed() == (0, 1)


def test_it_stops_when_a_chunk_arrives(
    database: Database,
    model: Model,
    watchdog: Watchdog,
    changed: Callable[[], tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = idle_index.update_postings

    def take_a_chunk(*arguments: object, **options: object) -> int:
        with watchdog.working():
            return read(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(idle_index, "update_postings", take_a_chunk)
    IdleIndex(database, model, watchdog, lambda: 0).look()
    assert changed() == (0, 1)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_one_worker_of_a_model_builds_at_a_time(
    database: Database, model: Model, watchdog: Watchdog, changed: Callable[[], tuple[int, ...]]
) -> None:
    index = IdleIndex(database, model, watchdog, lambda: 0)
    with database.read() as connection:
        connection.execute(text(f"select pg_advisory_xact_lock({idle_index._LOCK + model.id})"))
        index.look()
        assert changed() == (0, 1)
    index.look()
    assert changed() == ()
