"""Background threads of a worker survive unexpected errors, and log them."""

import logging
import threading

import pytest

from workers.queue import background
from workers.queue.watchdog import Watchdog

SOON = 20


def test_an_unexpected_error_is_logged_and_the_thread_continues(caplog: pytest.LogCaptureFixture) -> None:
    ends, again = iter([ValueError("unexpected error")]), threading.Event()

    def work() -> None:
        for error in ends:
            raise error
        again.set()
        threading.Event().wait()  # for ever: the thread remains, and logs nothing more

    with caplog.at_level(logging.ERROR):
        background.repeat("looking after", 0.01, work)
        assert again.wait(SOON)
    (record,) = caplog.records
    assert "looking after" in record.message
    assert record.exc_info
    assert "unexpected error" in str(record.exc_info[1])


def test_the_watchdog_survives_an_unexpected_error_of_the_queue(caplog: pytest.LogCaptureFixture) -> None:
    """Kombu may raise any exception. Without the handler the watchdog would end silently."""
    answers, stopped = iter([RuntimeError("dictionary changed size"), 0]), threading.Event()

    def waiting() -> int:
        if stopped.is_set():
            threading.Event().wait()  # for ever: otherwise the thread would log until the end of all tests
        answer = next(answers, 0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    dog = Watchdog(progress=lambda: 0, waiting=waiting, stall_seconds=0, max_idle_seconds=0.1, stop=stopped.set)
    dog.start()
    assert stopped.wait(SOON)
    assert "dictionary changed size" in caplog.text
