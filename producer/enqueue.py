"""Register references and put what is pending on the queue. Rows first, committed; messages after."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from db import images
from db.batches import batched
from db.database import Database
from db.images import Reference
from producer.chunks import Sender

REGISTER_SIZE = 2_000
"""References registered in one transaction."""


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
    on_progress: Callable[[Enqueued], None] = lambda _enqueued: None,
) -> Enqueued:
    """Register every reference and send those that are pending for the model.

    Memory stays flat: nothing is held but one batch of references and one chunk of ids.
    """
    counts = Enqueued()

    def pending_ids() -> Iterator[int]:
        for batch in batched(references, REGISTER_SIZE):
            with database.write() as connection:
                ids = images.register(connection, batch, model_id)
            counts.seen += len(batch)
            yield from ids
            on_progress(counts)

    for chunk in batched(pending_ids(), chunk_size):
        sender.send(chunk)
        counts.sent += len(chunk)
    on_progress(counts)
    return counts


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
