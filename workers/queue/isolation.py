"""Isolates the image that crashes its worker, and records it as `crashed`.

A chunk that was delivered before runs alone, so that only it can be the cause if the worker dies again. A worker runs
several chunks at once: when one image kills the process, all of them are delivered again, and without isolation the
deliveries of innocent chunks would be counted along. A chunk that was delivered too often is split, down to one image.
"""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from celery import Celery

from db.arrays.batches import batched
from db.database import Database
from db.errors import Reason
from db.ledger import images, results
from db.ledger.results import Failure
from producer.queue.chunks import Chunk, sending

log = structlog.stdlib.get_logger(__name__)

MAX_DELIVERIES = 3
"""A chunk delivered a fourth time has killed or failed three workers: it is split, down to the image that causes
it."""

SPLIT = 8
"""Pieces of a chunk that is split. Each level costs `MAX_DELIVERIES` dead workers; 256 images take three levels."""


class SharedLock:
    """A shared and exclusive (reader-writer) lock that prefers exclusive holders.

    Chunks delivered for the first time share it; a chunk that was delivered before holds it exclusively.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holders = 0
        self._exclusive = 0
        """Exclusive holders and those that wait. While there is one, no new shared holder enters: otherwise a steady
        stream of them would keep an exclusive one waiting for ever."""

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold it together with other shared holders."""
        with self._changed:
            self._changed.wait_for(lambda: not self._exclusive)
            self._holders += 1
        try:
            yield
        finally:
            self._release(exclusive=0)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold it alone."""
        with self._changed:
            self._exclusive += 1
            self._changed.wait_for(lambda: not self._holders)
            self._holders += 1
        try:
            yield
        finally:
            self._release(exclusive=1)

    def _release(self, *, exclusive: int) -> None:
        with self._changed:
            self._holders -= 1
            self._exclusive -= exclusive
            self._changed.notify_all()


def send_pieces(app: Celery, chunk: Chunk) -> None:
    """Split a chunk that killed or failed too many workers."""
    with sending(app, chunk.model_id, max_waiting=2**31) as sender:
        for piece in batched(chunk.image_ids, math.ceil(len(chunk.image_ids) / SPLIT)):
            sender.send(piece)


def record_as_crashed(database: Database, chunk: Chunk) -> None:
    """Record the image of a chunk of one image as a failure, if it is still pending."""
    detail = f"a worker died, was killed, or its model failed {MAX_DELIVERIES} times with this image alone"
    with database.write() as connection:
        for image in images.pending_among(connection, chunk.image_ids, chunk.model_id):
            log.error("an image is recorded as crashed", uri=image.uri)
            failure = Failure(image.id, image.version, Reason.CRASHED, detail)
            results.save(connection, chunk.model_id, [], [failure])
