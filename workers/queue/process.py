"""The worker process: Celery's worker with our task, error handling and shutdown."""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import structlog
from celery import Celery, signals
from celery.exceptions import Reject
from celery.worker import state
from celery.worker.control import Panel
from sqlalchemy.exc import SQLAlchemyError

from db import migrate
from db.errors import BrokerError, ModelError, StopError, TagonceError, TransientError
from db.ledger import deliveries
from producer.queue.broker import TASK_NAME, depth
from producer.queue.chunks import Chunk
from workers.options import Options
from workers.pipeline import Pipeline, Report
from workers.queue import isolation
from workers.queue.idle_index import IdleIndex
from workers.queue.isolation import MAX_DELIVERIES, SharedLock
from workers.queue.leases import Leases
from workers.queue.watchdog import Watchdog

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 3.0
"""Between two attempts while the database or the storage does not answer."""


ANSWERED = {"ping", "stats", "active", "active_queues", "registered", "reserved", "revoked", "scheduled"}
"""Commands of Celery's remote control that the health check and Flower use. With the others, anyone with access to
Redis could have this worker consume other queues, whose messages are not validated."""


class Stop(threading.Event):
    """Set when chunks that are being processed must be returned to the queue."""

    error: StopError | None = None
    """Why this worker must end, if the reason is a known one."""


def run_worker(app: Celery, pipeline: Pipeline, options: Options) -> int:
    """Process chunks until SIGTERM or SIGINT.

    Returns:
        The exit code: 0, or 70 (EX_SOFTWARE) after a failure that a restart may fix.

    Raises:
        StopError: a failure that a restart does not fix.
    """
    stop = Stop()

    def stop_soon(**_kwargs: object) -> None:
        # Celery now takes no more chunks and waits for those that run. Chunks that outlast the grace are returned.
        timer = threading.Timer(options.grace_seconds, stop.set)
        timer.daemon = True
        timer.start()

    signals.worker_shutting_down.connect(stop_soon, weak=False)
    signals.setup_logging.connect(lambda **_kwargs: None, weak=False)  # the caller configures logging
    for name in Panel.data.keys() - ANSWERED:
        del Panel.data[name]

    def waiting() -> int:
        return depth(app, pipeline.model.id).waiting

    watchdog = Watchdog(
        progress=pipeline.metrics.steps,
        waiting=waiting,
        stall_seconds=options.stall_seconds,
        max_idle_seconds=options.max_idle,
        stop=lambda: _end_celery(os.EX_OK),
    )
    add_task(app, pipeline, stop, watchdog)
    worker = app.Worker(
        hostname=f"tagonce-{os.getpid()}@{socket.gethostname()}",
        concurrency=options.concurrency,
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    watchdog.start()
    if options.update_index:
        IdleIndex(pipeline.database, pipeline.model, watchdog, waiting).start()
    worker.start()
    if stop.error:
        raise stop.error
    return int(worker.exitcode or 0)


def add_task(app: Celery, pipeline: Pipeline, stop: Stop, watchdog: Watchdog) -> None:
    """Register the task, bound to the model of this process."""
    leases = Leases(app)
    tagger = _Tagger(app, pipeline, stop, watchdog)

    @app.task(name=TASK_NAME, bind=True)  # type: ignore[untyped-decorator]
    def tag(self: object, **kwargs: object) -> None:
        """Tag one chunk. The message is acknowledged when this returns; `Reject` returns it to the queue."""
        request = self.request  # type: ignore[attr-defined]
        with (
            structlog.contextvars.bound_contextvars(task=request.id, model=pipeline.model.name),
            watchdog.working(),
            leases.held(request.properties["delivery_tag"]),
        ):
            chunk = Chunk.from_message(kwargs)
            if chunk is None or chunk.model_id != pipeline.model.id:
                log.error("dropped a message that is not a chunk for this model", message=f"{kwargs!r:.200}")
                return
            tagger.tag(chunk, request.id)


class _Tagger:
    """Processes deliveries of chunks. Threads share it."""

    def __init__(self, app: Celery, pipeline: Pipeline, stop: Stop, watchdog: Watchdog) -> None:
        self._app = app
        self._pipeline = pipeline
        self._database = pipeline.database
        self._stop = stop
        self._watchdog = watchdog
        self._lock = SharedLock()

    def tag(self, chunk: Chunk, chunk_id: str) -> None:
        """Process one delivery: count it, run the chunk, write the results.

        Raises:
            Reject: the chunk was not finished, and returns to the queue.
        """
        try:
            # A delivery is counted after the lock is acquired: a chunk that only waited when another one killed the
            # worker is innocent.
            suspect = self._retried(lambda: self._deliveries_so_far(chunk_id)) > 0
            with self._lock.exclusive() if suspect else self._lock.shared():
                self._deliver(chunk, chunk_id)
        except Reject:
            raise
        except Exception as error:
            if blamed := self._is_to_blame(error):
                log.warning("the model fails on this chunk only: its delivery stays counted", error=str(error))
            else:
                # A full or read-only database refuses this too, and the chunk must return to the queue nevertheless.
                with suppress(Exception):
                    self._forget(chunk_id)
            continues = isinstance(error, ModelError) if blamed else isinstance(error, TransientError | BrokerError)
            if not continues:
                _end_this_worker(error, self._stop)
            raise Reject(error, requeue=True) from error

    def _is_to_blame(self, error: Exception) -> bool:
        """Whether the chunk caused the error: the self-test of this worker, run now, passes.

        A service that does not answer, a full disk or a wrong setting is not caused by a chunk; an unexpected error may
        be caused by an image.
        """
        elsewhere = isinstance(error, TagonceError | SQLAlchemyError | OSError) and not isinstance(error, ModelError)
        return not elsewhere and self._pipeline.self_test.passes()

    def _deliver(self, chunk: Chunk, chunk_id: str) -> None:
        delivery = self._retried(lambda: self._count(chunk_id))
        if delivery > MAX_DELIVERIES:
            self._give_up(chunk, chunk_id)
            return
        report = self._retried(lambda: self._pipeline.run(chunk.image_ids, should_stop=self._stop.is_set))
        self._retried(lambda: self._forget(chunk_id))
        _log_report(report)
        if report.left:
            raise Reject("returned to the queue at shutdown", requeue=True)

    def _retried(self, attempt: Callable[[], T]) -> T:
        """Retry while a service that `attempt` needs does not answer.

        The chunk stays with this worker meanwhile, and its delivery is counted once. If it were returned, another
        worker would take it at once, and fail for the same reason.

        Raises:
            TransientError, BrokerError: the service did not answer before this worker had to stop.
        """
        while True:
            try:
                return attempt()
            except (TransientError, BrokerError) as error:
                log.warning("waiting for a service, then trying again", error=str(error))
                self._watchdog.note_progress()
                if self._stop.wait(RETRY_SECONDS):
                    raise

    def _deliveries_so_far(self, chunk_id: str) -> int:
        with self._database.read() as connection:
            return deliveries.current(connection, chunk_id)

    def _count(self, chunk_id: str) -> int:
        with self._database.write() as connection:
            migrate.check(connection)  # a newer program may have upgraded it since we started
            self._pipeline.save_heartbeat(connection)
            return deliveries.count(connection, chunk_id)

    def _forget(self, chunk_id: str) -> None:
        with self._database.write() as connection:
            deliveries.forget(connection, chunk_id)

    def _give_up(self, chunk: Chunk, chunk_id: str) -> None:
        """Split a chunk that keeps killing workers; if it has a single image, record that as `crashed`."""
        ids = chunk.image_ids
        if len(ids) > 1:
            log.warning("split a chunk that killed or failed workers", images=len(ids), deliveries=MAX_DELIVERIES)
            self._retried(lambda: isolation.send_pieces(self._app, chunk))
        else:
            self._retried(lambda: isolation.record_as_crashed(self._database, chunk))
        # Separate from the sending: retrying both together would send the pieces again after an outage.
        self._retried(lambda: self._forget(chunk_id))


def _end_this_worker(error: Exception, stop: Stop) -> None:
    """End the worker after an error that no image causes: wrong settings, a broken device, a bug.

    If it continued, it would take every chunk of the queue and fail on each.
    """
    if isinstance(error, StopError):
        stop.error = error
    else:
        log.error("chunk returned to the queue; this worker ends", exc_info=error)
    _end_celery(os.EX_SOFTWARE)


def _end_celery(exit_code: int) -> None:
    """Shut down as SIGTERM does, with this exit code: no chunk is taken any more, and running ones continue."""
    state.should_stop = exit_code


def _log_report(report: Report) -> None:
    log.info(
        "chunk done",
        images=report.images,
        done=report.done,
        failed=report.failed,
        skipped=report.skipped,
        left=report.left,
        seconds=round(report.seconds, 2),
        images_per_second=round((report.done + report.failed) / report.seconds, 1),
    )
