"""Who is to blame when a worker dies: a chunk that was there before is run alone, so that its death is its own.

A worker has several chunks in work. When one image kills the process, all of them come back, and without this the
neighbours of a deadly image would be counted, and in the end recorded, along with it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Lets chunks in: new ones side by side, suspects one at a time and with nobody else inside."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._suspects = 0
        """Inside or waiting. While there is one, nobody new goes in, or it would wait for ever."""

    @contextmanager
    def side_by_side(self) -> Iterator[None]:
        """With others inside, none of them a suspect."""
        with self._changed:
            self._changed.wait_for(lambda: not self._suspects)
            self._inside += 1
        try:
            yield
        finally:
            self._leave(suspects=0)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """With nobody else inside."""
        with self._changed:
            self._suspects += 1
            self._changed.wait_for(lambda: not self._inside)
            self._inside += 1
        try:
            yield
        finally:
            self._leave(suspects=1)

    def _leave(self, *, suspects: int) -> None:
        with self._changed:
            self._inside -= 1
            self._suspects -= suspects
            self._changed.notify_all()
