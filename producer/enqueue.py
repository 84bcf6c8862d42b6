"""Register references and put what is pending on the queue. Rows first, committed; messages after."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from db.batches import batched
from db.database import Database
from db.ledger import images
from db.ledger.id_set import IdSet
from db.ledger.images import Reference
from producer.queue.chunks import Sender

REGISTER_SIZE = 10_000
"""References registered in one transaction, at most."""
READ_SIZE = 500
"""References read from the source between two looks at whether the database is done with those before."""


@dataclass(slots=True)
class Enqueued:
    """Counts of one call, kept up to date while it runs."""

    seen: int = 0
    """References that the source yielded."""
    sent: int = 0
    """Images put on the queue: pending for the model."""


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

    Memory stays flat: nothing is held but two batches of references and one chunk of ids.

    Args:
        seen: gets the ids of all images that the source yielded, done or not.
    """
    counts = Enqueued()

    def register(batch: list[Reference]) -> list[int]:
        with database.write() as connection:
            return images.register(connection, batch, model_id, seen=seen)

    def pending_ids() -> Iterator[int]:
        for batch, ids in _side_by_side(register, references):
            counts.seen += len(batch)
            yield from ids
            on_progress(counts)

    for chunk in batched(pending_ids(), chunk_size):
        sender.send(chunk)
        counts.sent += len(chunk)
    on_progress(counts)
    return counts


def _side_by_side(
    register: Callable[[list[Reference]], list[int]], references: Iterable[Reference]
) -> Iterator[tuple[list[Reference], list[int]]]:
    """Batches and their pending ids. While a thread registers one, the next is read and the one before is sent.

    A batch is what the source gave while the database was busy: a slow source has its references sent at once, and a
    fast one fills the batches, which the database likes.
    """
    before: list[Reference] = []
    batch: list[Reference] = []
    registering: Future[list[int]] = Future()
    registering.set_result([])  # nothing came before the first batch
    with ThreadPoolExecutor(1, thread_name_prefix="register") as pool:
        for some in batched(references, READ_SIZE):
            batch += some
            if registering.done() or len(batch) >= REGISTER_SIZE:
                done, ids = before, registering.result()
                before, registering, batch = batch, pool.submit(register, batch), []
                yield done, ids
        yield before, registering.result()
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
    """Send everything that is registered and pending: after Redis lost its data, or failures were cleared."""
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
