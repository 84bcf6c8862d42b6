"""A budget that threads share: of memory, in whatever unit it is counted."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """So much at once, and no more; but one that wants more than there is gets in alone, or it would wait for ever."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._taken = 0
        self._turns = deque[object]()
        """First come, first served: else a large one would wait for as long as small ones come."""

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Waits until it is free; given back at the end of the block."""
        turn = object()
        with self._changed:
            self._turns.append(turn)
            self._changed.wait_for(
                lambda: self._turns[0] is turn and (not self._taken or self._taken + amount <= self._limit)
            )
            self._turns.popleft()
            self._taken += amount
            self._changed.notify_all()  # there may be room for the next one, too
        try:
            yield
        finally:
            with self._changed:
                self._taken -= amount
                self._changed.notify_all()
