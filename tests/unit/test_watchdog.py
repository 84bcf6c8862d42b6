"""Decisions of the watchdog, check by check. tests/e2e/test_stuck_worker.py tests that it ends a process."""

import time
from typing import Any

import pytest

from db.errors import BrokerError
from workers.queue import watchdog
from workers.queue.watchdog import Watchdog


class Clock:
    """A clock that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.monotonic()
        monkeypatch.setattr(watchdog.time, "monotonic", lambda: self.now)


class Watched:
    """Progress and queue as the watchdog reads them."""

    def __init__(self, **limits: Any) -> None:
        self.steps = 0
        self.queue: int | None = 0
        """None: Redis does not answer."""
        self.stopped = False
        self.dog = Watchdog(
            progress=lambda: self.steps, waiting=self.waiting, stop=self.stop, **({"max_idle_seconds": None} | limits)
        )

    def waiting(self) -> int:
        if self.queue is None:
            raise BrokerError("away")
        return self.queue

    def stop(self) -> None:
        self.stopped = True


class StuckError(Exception):
    """Raised instead of ending the process."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    def die(why: str) -> None:
        raise StuckError(why)

    monkeypatch.setattr(watchdog, "_die", die)
    return Clock(monkeypatch)


def test_a_chunk_in_which_nothing_moves_ends_the_process(clock: Clock) -> None:
    """Every stage of an image, and every attempt of a worker that waits for its database, restarts the time."""
    watched = Watched(stall_seconds=100)
    with watched.dog.working():
        for _ in range(3):
            clock.now += 99
            watched.steps += 1
            watched.dog._look()
        clock.now += 99
        watched.dog.note_progress()
        clock.now += 99
        watched.dog._look()
        clock.now += 2
        with pytest.raises(StuckError, match="1 chunk in progress, and no image completed a stage for 101 s"):
            watched.dog._look()


def test_a_queue_from_which_nothing_is_taken_ends_the_process(clock: Clock) -> None:
    """The time starts with the first waiting chunk: the worker may have been idle for days. An outage resets it."""
    watched = Watched(stall_seconds=100)
    clock.now += 100_000
    watched.dog._look()
    watched.queue = 7
    watched.dog._look()
    clock.now += 99
    watched.dog._look()
    with watched.dog.working():
        pass
    watched.dog._look()
    watched.queue = None
    clock.now += 1_000
    watched.dog._look()
    watched.queue = 7
    watched.dog._look()
    clock.now += 101
    with pytest.raises(StuckError, match="7 chunks on the queue, and this worker took none for 101 s"):
        watched.dog._look()


def test_an_idle_worker_stops_after_its_limit(clock: Clock) -> None:
    """With an empty queue and no chunk, and not while Redis does not answer."""
    watched = Watched(stall_seconds=0, max_idle_seconds=50)
    with watched.dog.working():
        clock.now += 1_000
        watched.dog._look()
    clock.now += 51
    for queue in (None, 1):
        watched.queue = queue
        watched.dog._look()
    assert not watched.stopped
    watched.queue = 0
    watched.dog._look()
    assert watched.stopped


def test_without_limits_nothing_ends(clock: Clock) -> None:
    watched = Watched(stall_seconds=0)
    clock.now += 10**9
    watched.dog._look()
    with watched.dog.working():
        clock.now += 10**9
        watched.dog._look()
    assert not watched.stopped
