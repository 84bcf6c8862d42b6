"""The worker process: Celery's own worker with our task and our way of stopping."""

import logging
import math
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from celery import Celery, signals
from celery.exceptions import Reject
from celery.worker import state

from db import deliveries, images, results
from db.batches import batched
from db.database import Database
from db.errors import Reason, StopError, TransientError
from db.results import Failure
from producer.broker import TASK_NAME
from producer.chunks import Chunk, sending
from workers.lease import Leases
from workers.options import Options
from workers.pipeline import Pipeline, Report
from workers.suspects import Gate

log = logging.getLogger(__name__)

MAX_DELIVERIES = 3
"""A chunk that comes a fourth time has killed, or lost, three workers: it is split, down to the image that does it."""

SPLIT = 8
"""Pieces. Each level costs as many dead workers as there are deliveries: from 256 images to one in three levels."""

RETRY_SECONDS = 3.0
"""Between two tries while the database is away. The chunk goes back to the queue meanwhile."""


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
    add_task(app, pipeline, stop)
    worker = app.Worker(
        hostname=f"tagonce-{os.getpid()}@{socket.gethostname()}",
        concurrency=options.concurrency,
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    worker.start()
    if stop.error:
        raise stop.error
    return int(worker.exitcode or 0)


def add_task(app: Celery, pipeline: Pipeline, stop: Stop) -> None:
    """The one task, bound to the one model of this process."""
    leases = Leases(app)
    gate = Gate()

    @app.task(name=TASK_NAME, bind=True)  # type: ignore[untyped-decorator]
    def tag(self: object, **kwargs: object) -> None:
        """Tag one chunk. Acknowledged when this returns; `Reject` gives it back to the queue."""
        request = self.request  # type: ignore[attr-defined]
        chunk = Chunk.from_message(kwargs)
        if chunk is None or chunk.model_id != pipeline.model.id:
            log.error("dropped a message that is no chunk for model %d: %.200r", pipeline.model.id, kwargs)
            return
        with leases.held(request.properties["delivery_tag"]):
            try:
                with _admitted(gate, pipeline.database, request.id):
                    _deliver(app, pipeline, chunk, request.id, stop)
            except Reject:
                raise
            except Exception as error:
                # This process is alive: whatever it was, the chunk is not to blame for a death.
                _forget_if_possible(pipeline.database, request.id)
                if isinstance(error, TransientError):
                    log.warning("chunk given back: %s", error)
                    stop.wait(RETRY_SECONDS)
                else:
                    _end_this_worker(error, stop)
                raise Reject(error, requeue=True) from error


@contextmanager
def _admitted(gate: Gate, database: Database, chunk_id: str) -> Iterator[None]:
    """Counting a delivery comes after this: a chunk that only waited when another one killed the worker is innocent."""
    with database.read() as connection:
        suspect = deliveries.so_far(connection, chunk_id) > 0
    with gate.alone() if suspect else gate.side_by_side():
        yield


def _deliver(app: Celery, pipeline: Pipeline, chunk: Chunk, chunk_id: str, stop: Stop) -> None:
    database = pipeline.database
    with database.write() as connection:
        delivery = deliveries.count(connection, chunk_id)
    if delivery > MAX_DELIVERIES:
        _give_up(app, pipeline, chunk, chunk_id)
        return
    report = pipeline.run(chunk.image_ids, should_stop=stop.is_set)
    with database.write() as connection:
        deliveries.forget(connection, chunk_id)
    _log_report(report)
    if report.left:
        raise Reject("handed back at shutdown", requeue=True)


def _give_up(app: Celery, pipeline: Pipeline, chunk: Chunk, chunk_id: str) -> None:
    """Split a chunk that keeps killing workers; record the image when there is only one left."""
    ids, database = chunk.image_ids, pipeline.database
    if len(ids) > 1:
        log.warning("a chunk of %d images came back %d times: it is split", len(ids), MAX_DELIVERIES)
        with sending(app, chunk.model_id, max_waiting=2**31) as sender:
            for piece in batched(ids, math.ceil(len(ids) / SPLIT)):
                sender.send(piece)
    with database.write() as connection:
        if len(ids) == 1:
            detail = f"{MAX_DELIVERIES} workers died, or were killed, while they had this image alone"
            for image in images.pending_among(connection, ids, chunk.model_id):
                log.error("%s is recorded as crashed", image.uri)
                failure = Failure(image.id, image.version, Reason.CRASHED, detail)
                results.save(connection, chunk.model_id, [], [failure])
        deliveries.forget(connection, chunk_id)


def _end_this_worker(error: Exception, stop: Stop) -> None:
    """Nothing an image can do: settings, a broken device, a bug. Going on would empty the queue without any result."""
    if isinstance(error, StopError):
        stop.error = error
    else:
        log.error("chunk given back, and this worker ends", exc_info=error)
    state.should_stop = os.EX_SOFTWARE


def _forget_if_possible(database: Database, chunk_id: str) -> None:
    with suppress(TransientError), database.write() as connection:
        deliveries.forget(connection, chunk_id)


def _log_report(report: Report) -> None:
    worked = report.done + report.failed
    log.info(
        "chunk of %d in %.1f s (%.1f images/s): %d done, %d failed, %d skipped, %d left",
        report.images,
        report.seconds,
        worked / report.seconds,
        report.done,
        report.failed,
        report.skipped,
        report.left,
    )
