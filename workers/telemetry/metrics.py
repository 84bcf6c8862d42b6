"""Counters of time and images by stage, for Prometheus (`workers.telemetry.exporter`) and the database."""

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from db.errors import Reason
from db.ledger.workers import Stage, Work

WINDOW_SECONDS = 60.0
"""Period of `recent`."""


@dataclass(slots=True)
class StageTotals:
    """Totals since the process began."""

    seconds: dict[Stage, float] = field(default_factory=lambda: dict.fromkeys(Stage, 0.0))
    """Sum over all threads: in a second of wall time, fetch and decode may add several."""
    images: dict[Stage, int] = field(default_factory=lambda: dict.fromkeys(Stage, 0))
    """Images that completed the stage, or failed in it."""
    failures: Counter[Reason] = field(default_factory=Counter)
    """A chunk that is run again counts its failures again."""
    duplicates: int = 0
    """Images with known bytes, which were neither decoded nor inferred."""
    skipped: int = 0
    """Images that were delivered again after they were done."""
    active_seconds: float = 0.0
    """Wall time with at least one chunk."""

    def copy(self) -> "StageTotals":
        return replace(self, seconds=self.seconds.copy(), images=self.images.copy(), failures=self.failures.copy())


@dataclass(slots=True)
class Timed:
    """A block that is being timed."""

    images: int


class WorkerMetrics:
    """Counters of one process, shared by its threads. An addition takes about a microsecond."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = StageTotals()
        self._chunks = 0
        self._active_since = 0.0
        self._marks = deque([(time.monotonic(), StageTotals())])

    @contextmanager
    def timed(self, stage: Stage, images: int) -> Iterator[Timed]:
        """Count the block as a stage of so many images, which the block may change. It counts also if it fails."""
        begun = time.perf_counter()
        timed = Timed(images)
        try:
            yield timed
        finally:
            self.add(stage, time.perf_counter() - begun, timed.images)

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
        """Count the time of the block as active. Concurrent blocks count once."""
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
        """A number that grows whenever an image completes a stage or is skipped."""
        with self._lock:
            return sum(self._totals.images.values()) + self._totals.skipped

    def totals(self) -> StageTotals:
        """A copy of the current totals."""
        with self._lock:
            now = self._totals.copy()
            if self._chunks:
                now.active_seconds += time.monotonic() - self._active_since
            return now

    def recent(self) -> Work:
        """Work of the last minute, or since the last call if that is longer ago."""
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
