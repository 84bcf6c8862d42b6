"""Delete images with all their rows, one batch per transaction. An interrupted run is resumed by calling it again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, func, or_, select, true

from db.arrays.batches import batched
from db.arrays.id_set import IdSet
from db.database import Database
from db.ledger import changed_blocks, gone, models
from db.schema import failures, images, labels, predictions
from db.sql.connection.locks import lock_images
from db.sql.gone_scope import is_gone
from db.sql.in_list import in_list
from db.sql.scores.score_sql import begins_with

AT_ONCE = 1_000
"""Images deleted in one transaction."""
EXAMPLES = 5
"""Uris in a plan."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The number of rows that would be deleted."""

    images: int
    predictions: int
    failures: int
    labels: int
    labelled: int
    """Images that have labels."""
    examples: tuple[str, ...]
    """The first uris, at most `EXAMPLES`."""


def selection(prefixes: Sequence[str], *, only_gone: bool) -> ColumnElement[bool]:
    """A condition on `images`.

    Args:
        prefixes: images whose uri begins with one of these; empty for all images.
        only_gone: of these, only images that are marked as gone.
    """
    selected = or_(*(begins_with(prefix) for prefix in prefixes)) if prefixes else true()
    return selected & is_gone(images.c.id) if only_gone else selected


def plan(connection: Connection, where: ColumnElement[bool]) -> Plan:
    """Count the rows that `forget` would delete. Writes nothing."""
    ids = select(images.c.id).where(where)
    done, failed, judged = (
        connection.scalar(select(func.count()).select_from(table).where(table.c.image_id.in_(ids))) or 0
        for table in (predictions, failures, labels)
    )
    labelled = select(func.count(labels.c.image_id.distinct())).where(labels.c.image_id.in_(ids))
    number = select(func.count()).select_from(images).where(where)
    examples = select(images.c.uri).where(where).order_by(images.c.uri).limit(EXAMPLES)
    return Plan(
        connection.scalar(number) or 0,
        done,
        failed,
        judged,
        connection.scalar(labelled) or 0,
        tuple(connection.scalars(examples)),
    )


def forget(
    database: Database,
    where: ColumnElement[bool],
    *,
    keep_labels: bool,
    on_progress: Callable[[int], object] = lambda _images: None,
) -> int:
    """Delete images with their predictions, scores, failures and labels. Returns the number of deleted images.

    Args:
        where: from `selection`.
        keep_labels: keep images that have labels. They are marked as gone and lose their results. Their labels move to
            the next image of the same content (`db.ledger.moved_labels`), and count again when the image is seen again.
        on_progress: called after each batch with its number of images.
    """
    ids = IdSet()
    with database.read() as connection:
        model_ids = [model.id for model in models.every(connection)]
        query = select(images.c.id).where(where)
        with connection.execute(query, execution_options={"yield_per": 10 * AT_ONCE}) as result:
            for some in result.scalars().partitions():
                ids.add(some)
    deleted = 0
    for batch in batched(ids, AT_ONCE):
        with database.write() as connection:
            deleted += _delete(connection, batch, model_ids, where, keep_labels=keep_labels)
        on_progress(len(batch))
    return deleted


def _delete(
    connection: Connection,
    batch: Sequence[int],
    model_ids: Sequence[int],
    where: ColumnElement[bool],
    *,
    keep_labels: bool,
) -> int:
    lock_images(connection, batch)  # a worker with one of these images would insert a row that refers to none
    # Queried again: an image that was seen meanwhile is not gone any more.
    query = select(images.c.id).where(in_list(connection, images.c.id, batch), where).order_by(images.c.id)
    ids = list(connection.scalars(query))
    for model_id in model_ids:
        changed_blocks.mark(connection, model_id, ids)
    for table in (predictions, failures):
        for model_id in model_ids:  # by the key
            of_model = (table.c.model_id == model_id, in_list(connection, table.c.image_id, ids))
            connection.execute(delete(table).where(*of_model))
    if keep_labels:
        labelled = set(connection.scalars(select(labels.c.image_id).where(in_list(connection, labels.c.image_id, ids))))
        gone.mark(connection, sorted(labelled))
        ids = [image_id for image_id in ids if image_id not in labelled]
    return connection.execute(delete(images).where(in_list(connection, images.c.id, ids))).rowcount
