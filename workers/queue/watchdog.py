"""Ends a process that is stuck, or that has had nothing to do for as long as it was told to wait.

A thread cannot be ended from outside: neither one whose decoder never returns, nor one that waits for a device or a
connection that hangs. The process can, and its chunks come back when their leases run out (`workers.queue.leases`).
"""

import faulthandler
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from db.errors import BrokerError
from db.names.plural import counted
from workers.queue import background

log = logging.getLogger(__name__)

LOOKS = 10
"""Of which the last one finds out: a limit is exceeded by a tenth at most."""
LONGEST_PAUSE = 10.0


class Watchdog:
    """Looks at the work of the other threads from one of its own.

    Args:
        progress: a number that changes whenever an image gets a step further.
        waiting: chunks on the queue; raises BrokerError when Redis does not answer.
        stall_seconds: without any progress on what is in work, or with a queue from which nothing is taken, the process
            ends. 0: never.
        max_idle_seconds: without a chunk and with an empty queue, `stop` is called. None: never.
        stop: asks this worker to end in good order.
    """

    def __init__(
        self,
        *,
        progress: Callable[[], int],
        waiting: Callable[[], int],
        stall_seconds: float,
        max_idle_seconds: float | None,
        stop: Callable[[], None],
    ) -> None:
        self._progress = progress
        self._waiting = waiting
        self._stall_seconds = stall_seconds
        self._max_idle_seconds = max_idle_seconds
        self._stop = stop
        self._lock = threading.Lock()
        self._in_work = 0
        self._last_progress = 0
        self._moved_at = time.monotonic()
        self._queue_since: float | None = None
        """When a queue was first seen from which nothing has been taken since."""

    def start(self) -> None:
        """Does nothing where nothing is to be watched."""
        limits = [limit for limit in (self._stall_seconds, self._max_idle_seconds) if limit and limit < math.inf]
        if limits:
            background.repeat("watchdog", min(LONGEST_PAUSE, min(limits) / LOOKS), self._look)

    @contextmanager
    def working(self) -> Iterator[None]:
        """A chunk is in work inside of the block."""
        self.note_progress()
        with self._lock:
            self._in_work += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_work -= 1
            self.note_progress()

    def note_progress(self) -> None:
        """Nothing is stuck: something was begun, ended, or is waited for with a limit."""
        with self._lock:
            self._moved_at = time.monotonic()
            self._queue_since = None

    def _look(self) -> None:
        if (progress := self._progress()) != self._last_progress:
            self._last_progress = progress
            self.note_progress()
        with self._lock:
            in_work, still_for = self._in_work, time.monotonic() - self._moved_at
        if in_work:
            if 0 < self._stall_seconds < still_for:
                _die(f"{counted(in_work, 'chunk')} in work, and no image got a step further for {still_for:.0f} s")
        else:
            self._look_at_queue(still_for)

    def _look_at_queue(self, idle_for: float) -> None:
        try:
            waiting = self._waiting()
        except BrokerError:
            self._queue_since = None  # nothing can be taken, and Celery is trying to connect
            return
        if waiting:
            since = self._queue_since = self._queue_since or time.monotonic()
            if 0 < self._stall_seconds < (still_for := time.monotonic() - since):
                _die(f"{counted(waiting, 'chunk')} waiting on the queue, and none was taken for {still_for:.0f} s")
        elif self._max_idle_seconds is not None and idle_for > self._max_idle_seconds:
            log.info("nothing to do for %.0f s: this worker ends", idle_for)
            self._stop()


def _die(why: str) -> None:
    """Where every thread stands goes to standard error: it is all that tells what hung."""
    log.critical("%s (TAGONCE_STALL_SECONDS): this process is stuck and ends", why)
    faulthandler.dump_traceback()
    os._exit(os.EX_SOFTWARE)
