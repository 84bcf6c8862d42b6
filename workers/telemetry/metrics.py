"""Where the time of a worker goes: counters, for Prometheus (`workers.telemetry.exporter`) and for the database."""

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from db.errors import Reason
from db.ledger.workers import Stage, Work

WINDOW_SECONDS = 60.0
"""What `recent` looks back on."""


@dataclass(slots=True)
class StageTotals:
    """Since the process began."""

    seconds: dict[Stage, float] = field(default_factory=lambda: dict.fromkeys(Stage, 0.0))
    """Of fetch and decode: of all threads together, so that a second of the clock may hold several."""
    images: dict[Stage, int] = field(default_factory=lambda: dict.fromkeys(Stage, 0))
    """How many came through the stage."""
    failures: Counter[Reason] = field(default_factory=Counter)
    """Met so far: those of a chunk that had to be run again count again."""
    duplicates: int = 0
    """Images with bytes that were known, which were neither decoded nor inferred."""
    skipped: int = 0
    """Delivered, and done before."""
    active_seconds: float = 0.0
    """With a chunk in work."""

    def copy(self) -> "StageTotals":
        return replace(self, seconds=self.seconds.copy(), images=self.images.copy(), failures=self.failures.copy())


class WorkerMetrics:
    """Counts of one process. All threads of it add to them; an addition costs about a microsecond."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = StageTotals()
        self._chunks = 0
        self._active_since = 0.0
        self._marks = deque([(time.monotonic(), StageTotals())])

    @contextmanager
    def timed(self, stage: Stage, images: int = 1) -> Iterator[None]:
        """The block is this stage of so many images; also when it fails."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - begun, images)

    def add(self, stage: Stage, seconds: float, images: int) -> None:
        with self._lock:
            self._totals.seconds[stage] += seconds
            self._totals.images[stage] += images

    def count_results(self, failures: Mapping[Reason, int], duplicates: int) -> None:
        with self._lock:
            self._totals.failures.update(failures)
            self._totals.duplicates += duplicates

    def count_skipped(self, images: int) -> None:
        with self._lock:
            self._totals.skipped += images

    @contextmanager
    def active(self) -> Iterator[None]:
        """A chunk is in work inside of the block. Several at once count once."""
        with self._lock:
            if not self._chunks:
                self._active_since = time.monotonic()
            self._chunks += 1
        try:
            yield
        finally:
            with self._lock:
                self._chunks -= 1
                if not self._chunks:
                    self._totals.active_seconds += time.monotonic() - self._active_since

    def steps(self) -> int:
        """Grows with every step of an image."""
        with self._lock:
            return sum(self._totals.images.values()) + self._totals.skipped

    def totals(self) -> StageTotals:
        """As they are now."""
        with self._lock:
            now = self._totals.copy()
            if self._chunks:
                now.active_seconds += time.monotonic() - self._active_since
            return now

    def recent(self) -> Work:
        """What was done in the last minute, or since the last call where that is longer ago."""
        now, moment = self.totals(), time.monotonic()
        with self._lock:
            self._marks.append((moment, now))
            while len(self._marks) > 2 and self._marks[1][0] < moment - WINDOW_SECONDS:  # noqa: PLR2004 - begin and end
                self._marks.popleft()
            before = self._marks[0][1]
        return Work(
            seconds={stage: now.seconds[stage] - before.seconds[stage] for stage in Stage},
            images={stage: now.images[stage] - before.images[stage] for stage in Stage},
            duplicates=now.duplicates - before.duplicates,
            active_seconds=now.active_seconds - before.active_seconds,
        )
