"""The worker process: Celery's own worker with our task and our way of stopping."""

import math
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
from db.batches import batched
from db.errors import BrokerError, ModelError, Reason, StopError, TagonceError, TransientError
from db.ledger import deliveries, images, results
from db.ledger.results import Failure
from producer.queue.broker import TASK_NAME, depth
from producer.queue.chunks import Chunk, sending
from workers.options import Options
from workers.pipeline import Pipeline, Report
from workers.queue.isolation import Gate
from workers.queue.leases import Leases
from workers.queue.watchdog import Watchdog

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

MAX_DELIVERIES = 3
"""A chunk that comes a fourth time has killed, lost or failed three workers: it is split, down to the image that does
it."""

SPLIT = 8
"""Pieces. Each level costs as many dead workers as there are deliveries: from 256 images to one in three levels."""

RETRY_SECONDS = 3.0
"""Between two tries while the database, or the storage, is away."""


ANSWERED = {"ping", "stats", "active", "active_queues", "registered", "reserved", "revoked", "scheduled"}
"""Of Celery's remote control: what the health check and Flower ask. The rest would let whoever writes to Redis have
this worker take other queues, whose messages nobody has looked at."""


class Stop(threading.Event):
    """Set when chunks in work are to be handed back."""

    error: StopError | None = None
    """Why this worker has to end, where there is a sentence for it."""


def run_worker(app: Celery, pipeline: Pipeline, options: Options) -> int:
    """Work until SIGTERM or SIGINT; returns the exit code, 0 unless something broke that a restart may mend.

    Raises:
        StopError: something that a restart does not mend, met while at work.
    """
    stop = Stop()

    def stop_soon(**_kwargs: object) -> None:
        # Celery now takes nothing new and waits for what runs. Chunks that outlast the grace are handed back.
        timer = threading.Timer(options.grace_seconds, stop.set)
        timer.daemon = True
        timer.start()

    signals.worker_shutting_down.connect(stop_soon, weak=False)
    signals.setup_logging.connect(lambda **_kwargs: None, weak=False)  # logging is the caller's
    for name in Panel.data.keys() - ANSWERED:
        del Panel.data[name]
    watchdog = Watchdog(
        progress=pipeline.metrics.steps,
        waiting=lambda: depth(app, pipeline.model.id).waiting,
        stall_seconds=options.stall_seconds,
        max_idle_seconds=options.max_idle_seconds,
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
    worker.start()
    if stop.error:
        raise stop.error
    return int(worker.exitcode or 0)


def add_task(app: Celery, pipeline: Pipeline, stop: Stop, watchdog: Watchdog) -> None:
    """The one task, bound to the one model of this process."""
    leases = Leases(app)
    tagger = _Tagger(app, pipeline, stop, watchdog)

    @app.task(name=TASK_NAME, bind=True)  # type: ignore[untyped-decorator]
    def tag(self: object, **kwargs: object) -> None:
        """Tag one chunk. Acknowledged when this returns; `Reject` gives it back to the queue."""
        request = self.request  # type: ignore[attr-defined]
        with (
            structlog.contextvars.bound_contextvars(task=request.id, model=pipeline.model.name),
            watchdog.working(),
            leases.held(request.properties["delivery_tag"]),
        ):
            chunk = Chunk.from_message(kwargs)
            if chunk is None or chunk.model_id != pipeline.model.id:
                log.error("dropped a message that is no chunk for this model", message=f"{kwargs!r:.200}")
                return
            tagger.tag(chunk, request.id)


class _Tagger:
    """Takes deliveries of chunks. Threads share it."""

    def __init__(self, app: Celery, pipeline: Pipeline, stop: Stop, watchdog: Watchdog) -> None:
        self._app = app
        self._pipeline = pipeline
        self._database = pipeline.database
        self._stop = stop
        self._watchdog = watchdog
        self._gate = Gate()

    def tag(self, chunk: Chunk, chunk_id: str) -> None:
        """One delivery, from the count of it to the results.

        Raises:
            Reject: the chunk is for another worker, or for later.
        """
        try:
            # Counting a delivery comes after the gate: a chunk that only waited when another one killed the worker is
            # innocent.
            suspect = self._patiently(lambda: self._deliveries_so_far(chunk_id)) > 0
            with self._gate.alone() if suspect else self._gate.side_by_side():
                self._deliver(chunk, chunk_id)
        except Reject:
            raise
        except Exception as error:
            if blamed := self._is_to_blame(error):
                log.warning("the model works, and fails on this chunk: its delivery stays counted", error=str(error))
            else:
                # A database that is full or read-only refuses this too, and the chunk has to go back all the same.
                with suppress(Exception):
                    self._forget(chunk_id)
            goes_on = isinstance(error, ModelError) if blamed else isinstance(error, TransientError | BrokerError)
            if not goes_on:
                _end_this_worker(error, self._stop)
            raise Reject(error, requeue=True) from error

    def _is_to_blame(self, error: Exception) -> bool:
        """Whether it is the chunk that made this worker fail: pictures of our own, just now, do not.

        What is away, full, or set wrongly is nobody's fault; an unforeseen error may well be due to an image.
        """
        elsewhere = isinstance(error, TagonceError | SQLAlchemyError | OSError) and not isinstance(error, ModelError)
        return not elsewhere and self._pipeline.self_test.passes()

    def _deliver(self, chunk: Chunk, chunk_id: str) -> None:
        delivery = self._patiently(lambda: self._count(chunk_id))
        if delivery > MAX_DELIVERIES:
            self._give_up(chunk, chunk_id)
            return
        report = self._patiently(lambda: self._pipeline.run(chunk.image_ids, should_stop=self._stop.is_set))
        self._patiently(lambda: self._forget(chunk_id))
        _log_report(report)
        if report.left:
            raise Reject("handed back at shutdown", requeue=True)

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Again and again while what is needed for it is away. The chunk stays here meanwhile, and its delivery counted
        once: given back, it would be taken again at once, by a worker that has no database either.

        Raises:
            TransientError, BrokerError: it was away until this worker had to stop.
        """
        while True:
            try:
                return attempt()
            except (TransientError, BrokerError) as error:
                log.warning("waiting, and trying again", error=str(error))
                self._watchdog.note_progress()
                if self._stop.wait(RETRY_SECONDS):
                    raise

    def _deliveries_so_far(self, chunk_id: str) -> int:
        with self._database.read() as connection:
            return deliveries.so_far(connection, chunk_id)

    def _count(self, chunk_id: str) -> int:
        with self._database.write() as connection:
            migrate.check(connection)  # a newer program may have brought it forward since we started
            self._pipeline.tell(connection)
            return deliveries.count(connection, chunk_id)

    def _forget(self, chunk_id: str) -> None:
        with self._database.write() as connection:
            deliveries.forget(connection, chunk_id)

    def _give_up(self, chunk: Chunk, chunk_id: str) -> None:
        """Split a chunk that keeps killing workers; record the image when there is only one left."""
        ids = chunk.image_ids
        if len(ids) > 1:
            log.warning("a chunk that came back again and again is split", images=len(ids), deliveries=MAX_DELIVERIES)
            self._patiently(lambda: self._send_pieces(chunk))
        else:
            self._patiently(lambda: self._record_as_crashed(chunk))
        # On its own: tried again together with the sending, an outage would multiply the pieces.
        self._patiently(lambda: self._forget(chunk_id))

    def _send_pieces(self, chunk: Chunk) -> None:
        with sending(self._app, chunk.model_id, max_waiting=2**31) as sender:
            for piece in batched(chunk.image_ids, math.ceil(len(chunk.image_ids) / SPLIT)):
                sender.send(piece)

    def _record_as_crashed(self, chunk: Chunk) -> None:
        detail = f"{MAX_DELIVERIES} times a worker died, was killed, or its model failed, with this image alone"
        with self._database.write() as connection:
            for image in images.pending_among(connection, chunk.image_ids, chunk.model_id):
                log.error("an image is recorded as crashed", uri=image.uri)
                failure = Failure(image.id, image.version, Reason.CRASHED, detail)
                results.save(connection, chunk.model_id, [], [failure])


def _end_this_worker(error: Exception, stop: Stop) -> None:
    """Nothing an image can do: settings, a broken device, a bug. Going on would empty the queue without any result."""
    if isinstance(error, StopError):
        stop.error = error
    else:
        log.error("chunk given back, and this worker ends", exc_info=error)
    _end_celery(os.EX_SOFTWARE)


def _end_celery(exit_code: int) -> None:
    """As SIGTERM does, with another exit code: nothing new is taken, and what is in work goes on."""
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
