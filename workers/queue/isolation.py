"""Isolates a chunk that was delivered before: it runs alone, so that only it can be the cause if the worker dies again.

A worker runs several chunks at once. When one image kills the process, all of them are delivered again. Without
isolation, deliveries of the innocent chunks would be counted along, and in the end their images recorded as `crashed`.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SharedLock:
    """A shared and exclusive (reader-writer) lock that prefers exclusive holders.

    Chunks delivered for the first time share it; a chunk that was delivered before holds it exclusively.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holders = 0
        self._exclusive = 0
        """Exclusive holders and those that wait. While there is one, no new shared holder enters: otherwise a steady
        stream of them would keep an exclusive one waiting for ever."""

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold it together with other shared holders."""
        with self._changed:
            self._changed.wait_for(lambda: not self._exclusive)
            self._holders += 1
        try:
            yield
        finally:
            self._release(exclusive=0)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold it alone."""
        with self._changed:
            self._exclusive += 1
            self._changed.wait_for(lambda: not self._holders)
            self._holders += 1
        try:
            yield
        finally:
            self._release(exclusive=1)

    def _release(self, *, exclusive: int) -> None:
        with self._changed:
            self._holders -= 1
            self._exclusive -= exclusive
            self._changed.notify_all()
