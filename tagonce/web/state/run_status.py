"""The progress of a run, read from the database no more often than its cost allows."""

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from db.database import Database
from db.errors import Reason
from db.ledger import failures, run_progress, workers
from db.ledger.failures import Failed
from db.ledger.models import Model
from db.ledger.run_progress import ModelProgress
from db.ledger.workers import LOOK_BACK, Work, Worker, together
from db.truth import labels
from db.truth.labels import LabelCounts

_FAILURES = 24
_FRESH_SECONDS = 2.0
_COST_SHARE = 10
"""Reading scans two tables: a result that took a second is shown for ten."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The state of a run at one moment."""

    at: datetime
    progress: ModelProgress
    workers: list[tuple[Worker, Work]]
    failed: list[Failed]
    labels: LabelCounts

    @property
    def work(self) -> Work | None:
        """The sum of all workers."""
        return together([work for _, work in self.workers]) if self.workers else None


class Watch:
    """The latest status of a run, read again no more often than its cost allows."""

    def __init__(self, database: Database, model: Model) -> None:
        self._database = database
        self._model = model
        self._lock = threading.Lock()
        self._statuses: dict[Reason | None, tuple[float, RunStatus]] = {}

    def status(self, reason: Reason | None) -> RunStatus:
        """The status of the run, as old as `_FRESH_SECONDS` or ten times its cost at most.

        Args:
            reason: of the failures to show; None for all.
        """
        with self._lock:
            if reason in self._statuses and time.monotonic() < self._statuses[reason][0]:
                return self._statuses[reason][1]
            begun = time.monotonic()
            status = self._read(reason)
            cost = time.monotonic() - begun
            self._statuses[reason] = (time.monotonic() + max(_FRESH_SECONDS, _COST_SHARE * cost), status)
            return status

    def _read(self, reason: Reason | None) -> RunStatus:
        now, model = datetime.now(UTC), self._model
        with self._database.read() as connection:
            return RunStatus(
                now,
                run_progress.progress(connection, model.id),
                workers.seen_since(connection, model.id, now - LOOK_BACK),
                list(failures.latest(connection, model.id, _FAILURES, reason=reason)),
                labels.counts(connection, model),
            )
