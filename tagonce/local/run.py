"""`tagonce tag`: a worker process, and a producer that watches it and the queue.

The database records what is done: after any interruption, the next run finds and sends the pending images.
"""

import math
import os
import signal
import tempfile
import time
from array import array
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from celery import Celery

from db.arrays.batches import batched
from db.arrays.id_set import IdSet
from db.database import Database
from db.errors import StopError
from db.ledger import images, run_progress
from db.ledger.images import Reference
from db.ledger.models import Model
from db.names.plural import counted
from producer.enqueue import Enqueued, enqueue
from producer.queue import broker, chunks
from tagonce.local.worker_process import STOP_SECONDS, STOPPED_BY_US, WorkerProcess
from tagonce.settings import Settings
from workers.models.spec import ModelSpec

CHUNK_SIZE = 64
"""Smaller than between machines: large messages gain nothing here, and a few should be processed at once."""
LEASE_SECONDS = 15
GRACE_SECONDS = 1.0
POLL_SECONDS = 0.25
QUIET_POLLS = 8
"""After this many polls of an empty queue in a row, the queue counts as drained."""
MAX_RESENDS = 2
MAX_DEATHS = 40
"""Enough to find a few images that kill the worker, by splitting chunks."""


class LocalWorker:
    """`tagonce worker` as a child process that is restarted if it dies."""

    def __init__(self, settings: Settings, broker_url: str) -> None:
        handle, name = tempfile.mkstemp(prefix="tagonce-worker-", suffix=".log")
        os.close(handle)
        self.log = Path(name)
        self.deaths = 0
        worker_settings = settings.model_copy(
            update={
                "broker_url": broker_url,
                "grace_seconds": GRACE_SECONDS,
                "max_idle": math.inf,  # `stop` ends it
                "update_index": False,  # `tagonce tag` does so at its end
            }
        )
        self._process = WorkerProcess(worker_settings, log=self.log)

    def look_after(self) -> bool:
        """Restart it if it died. Returns whether it did.

        Raises:
            StopError: it exited with an error message, or died too often.
        """
        code = self._process.exit_code
        if code is None:
            return False
        self.deaths += 1
        if code in STOPPED_BY_US or self.deaths > MAX_DEATHS:
            raise StopError(f"The worker exited with code {code}:\n{self._error_message()}")
        self._process.start()
        return True

    def stop(self) -> None:
        """Let it write finished images, then end it."""
        self._process.signal(signal.SIGTERM)
        self._process.wait(GRACE_SECONDS + STOP_SECONDS)
        self.log.unlink(missing_ok=True)

    def _error_message(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        # Its own error message if there is one, otherwise the end of the log.
        start = next(
            (number for number, line in enumerate(lines) if line.startswith("error:")), max(0, len(lines) - 15)
        )
        return "\n".join(lines[start:]).removeprefix("error: ")


@dataclass(slots=True)
class Progress:
    """Progress of a run, updated while it runs."""

    begun: datetime = field(default_factory=lambda: datetime.now(UTC))
    seen: int = 0
    """References from the sources so far."""
    sent: int = 0
    """Of these, without a result before."""
    done: int = 0
    failed: int = 0

    @property
    def seconds(self) -> float:
        return (datetime.now(UTC) - self.begun).total_seconds()


class LocalRun:
    """One run of `tagonce tag`: register and send images, watch the worker, and send lost chunks again.

    Args:
        spec, model: the model, and its row.
        show: called with the progress, several times a second.
    """

    def __init__(
        self,
        database: Database,
        spec: ModelSpec,
        model: Model,
        app: Celery,
        worker: LocalWorker,
        show: Callable[[Progress], None],
    ) -> None:
        self.progress = Progress()
        self._database = database
        self._spec = spec
        self._model_id = model.id
        self._app = app
        self._worker = worker
        self._show = show
        self._look_again_at = 0.0

    def tag(
        self, references: Iterable[Reference], *, max_waiting: int, chunk_size: int, seen: IdSet | None = None
    ) -> None:
        """Tag all references. Returns when every image has a prediction or a failure.

        Args:
            seen: see `producer.enqueue.enqueue`.

        Raises:
            StopError: the worker cannot run, or it had to be restarted and the weights have changed.
        """
        sent = array("q")  # eight bytes per image, to find pending images at the end

        def sending() -> AbstractContextManager[chunks.Sender]:
            return chunks.sending(
                self._app,
                self._model_id,
                max_waiting=max_waiting,
                on_wait=lambda _depth: self._look(),
                on_sent=sent.extend,
            )

        def registered(counts: Enqueued) -> None:
            self.progress.seen, self.progress.sent = counts.seen, counts.sent
            self._look()

        with sending() as sender:
            enqueue(
                self._database,
                sender,
                references,
                model_id=self._model_id,
                chunk_size=chunk_size,
                seen=seen,
                on_progress=registered,
            )
        left = self._wait(sent)
        for _round in range(MAX_RESENDS):
            if not left:
                return
            with sending() as sender:
                for chunk in batched(left, chunk_size):
                    sender.send(chunk)
            left = self._wait(sent)
        if left:
            raise StopError(f"{counted(len(left), 'image')} still pending. Run the same command again.")

    def recount(self) -> None:
        """Update `progress` from the database."""
        with self._database.read() as connection:
            self.progress.done, self.progress.failed = run_progress.finished_since(
                connection, self._model_id, self.progress.begun
            )

    def _wait(self, sent: "array[int]") -> list[int]:
        """Wait until no image sent is pending, or the queue is drained. Returns the pending image ids."""
        quiet = 0
        while quiet < QUIET_POLLS:
            # The count may include results of another run on this database, so the images are checked as well.
            if self.progress.done + self.progress.failed >= self.progress.sent and not self._pending(sent):
                return []
            time.sleep(POLL_SECONDS)
            self._look()
            quiet = quiet + 1 if broker.depth(self._app, self._model_id).empty else 0
        return self._pending(sent)

    def _pending(self, sent: "array[int]") -> list[int]:
        left: list[int] = []
        for ids in batched(sent, images.LOOKUP_SIZE):
            with self._database.read() as connection:
                left += [image.id for image in images.pending_among(connection, ids, self._model_id)]
        return left

    def _look(self) -> None:
        begun = time.monotonic()
        if begun < self._look_again_at:
            return
        if self._worker.look_after():
            self._spec.check_weights()  # with other weights, the new worker would serve another model
            broker.release_all(self._app)  # free the dead worker's chunks now, not when their leases expire
        self.recount()
        self._show(self.progress)
        # Counting gets slower during a run; limit it to a tenth of the time.
        now = time.monotonic()
        self._look_again_at = now + max(POLL_SECONDS, 10 * (now - begun))
