"""Threads that look after a worker outlive whatever happens to them, and say what it was."""

import logging
import threading

import pytest

from workers import background
from workers.watchdog import Watchdog

SOON = 20


def test_an_unforeseen_error_is_logged_and_the_thread_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    ends, again = iter([ValueError("nobody foresaw this")]), threading.Event()

    def work() -> None:
        for error in ends:
            raise error
        again.set()
        raise SystemExit  # which ends the thread

    with caplog.at_level(logging.ERROR):
        background.repeat("looking after", 0.01, work)
        assert again.wait(SOON)
    (record,) = caplog.records
    assert "looking after" in record.message
    assert record.exc_info
    assert "nobody foresaw this" in str(record.exc_info[1])


def test_the_watchdog_outlives_a_queue_that_answers_strangely(caplog: pytest.LogCaptureFixture) -> None:
    """Kombu raises whatever it likes; before, the watchdog was gone then, and said nothing any more."""
    answers, stopped = iter([RuntimeError("dictionary changed size"), 0]), threading.Event()

    def waiting() -> int:
        if stopped.is_set():
            raise SystemExit  # which ends the thread: it would look, and say so, until the end of all tests
        answer = next(answers, 0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    dog = Watchdog(progress=lambda: 0, waiting=waiting, stall_seconds=0, max_idle_seconds=0.1, stop=stopped.set)
    dog.start()
    assert stopped.wait(SOON)
    assert "dictionary changed size" in caplog.text
