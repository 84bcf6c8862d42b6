"""Results that are good for a while."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """A few results, for a while; the least recently asked for go. Threads share it."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[float, T | None]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was made for a key before, or is made now."""
        with self._lock:
            made_at, value = self._values.get(key, (-math.inf, None))
            if value is not None and time.monotonic() - made_at < self._seconds:
                self._values.move_to_end(key)
                return value
        value = make()  # without the lock: twice at worst
        with self._lock:
            self._values[key] = time.monotonic(), value
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value
