"""Register references and queue pending images. Rows are committed before their messages are sent."""

import gc
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from db.arrays.batches import batched
from db.arrays.id_set import IdSet
from db.database import Database
from db.ledger import images
from db.ledger.images import Reference
from producer.queue.chunks import Sender

REGISTER_SIZE = 10_000
"""Most references that one transaction registers."""
READ_SIZE = 500
"""References read from the source before checking whether the database has finished the previous batch."""


@dataclass(slots=True)
class Enqueued:
    """Counts of one call, updated while it runs."""

    seen: int = 0
    """References that the source yielded, or pending rows read."""
    sent: int = 0
    """Images sent: those pending for the model."""


def enqueue(
    database: Database,
    sender: Sender,
    references: Iterable[Reference],
    *,
    model_id: int,
    chunk_size: int,
    seen: IdSet | None = None,
    on_progress: Callable[[Enqueued], None] = lambda _enqueued: None,
) -> Enqueued:
    """Register every reference and send those that are pending for the model.

    Memory is constant: two batches of references and one chunk of ids.

    Args:
        chunk_size: images in a message.
        seen: receives the ids of all images that the source yielded, done or not.
        on_progress: called with the counts after each registered batch.

    Raises:
        SourceError: the source cannot be read.
        BrokerError: Redis does not answer. Images not yet sent are still pending in the database.
    """
    counts = Enqueued()

    def register(batch: list[Reference]) -> list[int]:
        with database.write() as connection:
            return images.register(connection, batch, model_id, seen=seen)

    def pending_ids() -> Iterator[int]:
        for batch, ids in _registered_batches(register, references):
            counts.seen += len(batch)
            yield from ids
            on_progress(counts)

    with _rare_collections():
        for chunk in batched(pending_ids(), chunk_size):
            sender.send(chunk)
            counts.sent += len(chunk)
    on_progress(counts)
    return counts


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Run Python's cycle collector once per million new objects, and not once per 700.

    A batch is tens of thousands of objects without a cycle, and the collector walked through them again and again: that
    took a third of the producer's CPU, while the database waited.
    """
    before = gc.get_threshold()
    gc.set_threshold(1_000_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _registered_batches(
    register: Callable[[list[Reference]], list[int]], references: Iterable[Reference]
) -> Iterator[tuple[list[Reference], list[int]]]:
    """Batches of references with their pending ids. A thread registers one while the next is read and the last is sent.

    A batch holds what the source yielded while the database was busy. So references of a slow source are sent at once,
    and those of a fast source fill large batches, which the database writes faster.
    """
    previous: list[Reference] = []
    batch: list[Reference] = []
    registering: Future[list[int]] = Future()
    registering.set_result([])  # no batch precedes the first
    with ThreadPoolExecutor(1, thread_name_prefix="register") as pool:
        for read in batched(references, READ_SIZE):
            batch += read
            if registering.done() or len(batch) >= REGISTER_SIZE:
                done, ids = previous, registering.result()
                previous, registering, batch = batch, pool.submit(register, batch), []
                yield done, ids
        yield previous, registering.result()
    if batch:
        yield batch, register(batch)


def enqueue_pending(
    database: Database,
    sender: Sender,
    *,
    model_id: int,
    chunk_size: int,
    on_progress: Callable[[Enqueued], None] = lambda _enqueued: None,
) -> Enqueued:
    """Send all registered images that are pending: after Redis lost its data, or failures were cleared.

    Args and errors are those of `enqueue`.
    """
    counts = Enqueued()

    def pending_ids() -> Iterator[int]:
        after = 0
        while True:
            with database.read() as connection:
                ids = images.pending_after(connection, model_id, after, REGISTER_SIZE)
            if not ids:
                return
            counts.seen += len(ids)
            yield from ids
            on_progress(counts)
            after = ids[-1]

    for chunk in batched(pending_ids(), chunk_size):
        sender.send(chunk)
        counts.sent += len(chunk)
    return counts
