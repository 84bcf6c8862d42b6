"""A weighted semaphore: limits how much of a resource, such as memory, threads use at once."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """Threads hold at most `limit` units at once. A request above the limit is granted when no other holds any."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._taken = 0
        self._turns = deque[object]()
        """Requests are granted in their order: otherwise a large one would wait as long as small ones arrive."""

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Wait until so many units are free, and hold them for the block."""
        turn = object()
        with self._changed:
            self._turns.append(turn)
            self._changed.wait_for(
                lambda: self._turns[0] is turn and (not self._taken or self._taken + amount <= self._limit)
            )
            self._turns.popleft()
            self._taken += amount
            self._changed.notify_all()  # the next one may fit too
        try:
            yield
        finally:
            with self._changed:
                self._taken -= amount
                self._changed.notify_all()
