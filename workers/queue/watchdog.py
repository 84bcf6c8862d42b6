"""Ends a process that is stuck, or that has been idle for the configured time.

A thread cannot be ended from outside, for example one whose decoder never returns, or one that waits for a device or a
connection that hangs. So the process ends, and its chunks are delivered again when their leases expire
(`workers.queue.leases`).
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
"""Checks in the time of a limit, so that it is exceeded by a tenth at most."""
LONGEST_PAUSE = 10.0
"""Seconds between two checks, at most."""


class Watchdog:
    """Checks the progress of the other threads, from a thread of its own.

    Args:
        progress: a number that changes whenever an image completes a stage.
        waiting: number of chunks on the queue; raises BrokerError if Redis does not answer.
        stall_seconds: the process ends after so long without progress while it holds chunks, or without taking one
            while chunks wait. 0: never.
        max_idle_seconds: `stop` is called after so long without a chunk and with an empty queue. None: never.
        stop: shuts this worker down cleanly.
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
        self._chunks = 0
        self._last_progress = 0
        self._progress_at = time.monotonic()
        self._waiting_since: float | None = None
        """First check that found waiting chunks since this worker last took one."""

    def start(self) -> None:
        """Start the thread, unless neither limit is set."""
        limits = [limit for limit in (self._stall_seconds, self._max_idle_seconds) if limit and limit < math.inf]
        if limits:
            background.repeat("watchdog", min(LONGEST_PAUSE, min(limits) / LOOKS), self._look)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Inside the block this worker holds a chunk."""
        self.note_progress()
        with self._lock:
            self._chunks += 1
        try:
            yield
        finally:
            with self._lock:
                self._chunks -= 1
            self.note_progress()

    @property
    def idle_seconds(self) -> float:
        """Seconds since this worker held a chunk; 0 if it holds one."""
        with self._lock:
            return 0.0 if self._chunks else time.monotonic() - self._progress_at

    def note_progress(self) -> None:
        """Note that the worker is not stuck: something began, ended, or is awaited with a timeout."""
        with self._lock:
            self._progress_at = time.monotonic()
            self._waiting_since = None

    def _look(self) -> None:
        if (progress := self._progress()) != self._last_progress:
            self._last_progress = progress
            self.note_progress()
        with self._lock:
            chunks, seconds = self._chunks, time.monotonic() - self._progress_at
        if chunks:
            if 0 < self._stall_seconds < seconds:
                _die(f"{counted(chunks, 'chunk')} in progress, and no image completed a stage for {seconds:.0f} s")
        else:
            self._look_at_queue(seconds)

    def _look_at_queue(self, idle_for: float) -> None:
        try:
            waiting = self._waiting()
        except BrokerError:
            self._waiting_since = None  # no chunk can be taken; Celery is trying to reconnect
            return
        if waiting:
            since = self._waiting_since = self._waiting_since or time.monotonic()
            if 0 < self._stall_seconds < (seconds := time.monotonic() - since):
                _die(f"{counted(waiting, 'chunk')} on the queue, and this worker took none for {seconds:.0f} s")
        elif self._max_idle_seconds is not None and idle_for > self._max_idle_seconds:
            log.info("idle for %.0f s: this worker ends", idle_for)
            self._stop()


def _die(why: str) -> None:
    """End the process. The stacks of all threads go to standard error, to show what hung."""
    log.critical("%s (TAGONCE_STALL_SECONDS): this process is stuck and ends", why)
    faulthandler.dump_traceback()
    os._exit(os.EX_SOFTWARE)
