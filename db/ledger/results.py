"""Write what a worker found out about a chunk of images: one transaction, and twice is the same as once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, Table, delete, not_, select

from db.errors import Reason
from db.ledger import moved_labels
from db.schema import failures, images, predictions
from db.scores import Scores
from db.sql import chunk_writes
from db.sql.gone_scope import is_gone
from db.sql.in_list import in_list
from db.sql.locks import lock_rows
from db.sql.upsert import insert_into


@dataclass(frozen=True, slots=True)
class Prediction:
    """An image that was read and inferred."""

    image_id: int
    image_version: str
    """Of the row when the image was fetched."""
    file_bytes: int
    width: int
    height: int
    format: str
    """Pillow's name of the format, lower case."""
    sha256: bytes
    scores: Scores


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that will have no prediction until somebody clears this."""

    image_id: int
    image_version: str
    reason: Reason
    detail: str


def save(connection: Connection, model_id: int, done: Sequence[Prediction], failed: Sequence[Failure]) -> None:
    """Store predictions and failures of one model. An image ends in exactly one of the two."""
    current = _lock(connection, [*done, *failed])
    # A file that was registered anew while we worked on the old one is pending again, whatever came of the old one.
    done = sorted((one for one in done if current.get(one.image_id) == one.image_version), key=lambda one: one.image_id)
    failed = [one for one in failed if current.get(one.image_id) == one.image_version]
    if done:
        chunk_writes.update_facts(
            connection,
            [(one.image_id, one.file_bytes, one.width, one.height, one.format, one.sha256) for one in done],
        )
        # On SQLite a trigger deletes the scores as well, so a second run leaves no tag of the first behind.
        connection.execute(delete(predictions).where(*_of(connection, predictions, model_id, done)))
        now = datetime.now(UTC)
        chunk_writes.insert_predictions(
            connection,
            [(model_id, one.image_id, one.image_version, now, one.scores.tag_ids, one.scores.scores) for one in done],
        )
        connection.execute(delete(failures).where(*_of(connection, failures, model_id, done)))
        moved_labels.labels_follow(connection, [one.image_id for one in done])
    if failed := _not_predicted(connection, model_id, failed):
        _save_failures(connection, model_id, sorted(failed, key=lambda one: one.image_id))
        # What is left is of an older version of the file and says nothing about the one that failed.
        connection.execute(delete(predictions).where(*_of(connection, predictions, model_id, failed)))


def _lock(connection: Connection, results: Sequence[Prediction | Failure]) -> dict[int, str]:
    """Versions by id, of rows that stay as they are until the end of the transaction.

    Workers that have the same images write one after the other, in the order of ids and so without a deadlock. Else one
    could insert a prediction and another, which does not see it yet, a failure. SQLite has one writer anyway.
    """
    ids = [one.image_id for one in results]
    query = select(images.c.id, images.c.version).where(in_list(connection, images.c.id, ids))
    locked = lock_rows(connection, query.order_by(images.c.id), key_share=True)
    return {row.id: row.version for row in connection.execute(locked)}


def _of(
    connection: Connection, table: Table, model_id: int, results: Sequence[Prediction | Failure]
) -> tuple[ColumnElement[bool], ...]:
    ids = [one.image_id for one in results]
    return table.c.model_id == model_id, in_list(connection, table.c.image_id, ids)


def _not_predicted(connection: Connection, model_id: int, failed: Sequence[Failure]) -> list[Failure]:
    """Without those that another worker, which had the same chunk, predicted meanwhile."""
    if not failed:
        return []
    present = select(predictions.c.image_id, predictions.c.image_version).where(
        *_of(connection, predictions, model_id, failed)
    )
    versions = {row.image_id: row.image_version for row in connection.execute(present)}
    return [one for one in failed if versions.get(one.image_id) != one.image_version]


def _save_failures(connection: Connection, model_id: int, failed: Sequence[Failure]) -> None:
    now = datetime.now(UTC)
    statement = insert_into(connection, failures)
    replaced = ("image_version", "reason", "detail", "failed_at")
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["model_id", "image_id"],
            set_={name: statement.excluded[name] for name in replaced} | {"attempts": failures.c.attempts + 1},
        ),
        [
            {
                "model_id": model_id,
                "image_id": one.image_id,
                "image_version": one.image_version,
                "reason": one.reason.value,
                # PostgreSQL's text takes no NUL, and some decoders quote the file in their message.
                "detail": one.detail.replace("\0", ""),
                "attempts": 1,
                "failed_at": now,
            }
            for one in failed
        ],
    )


def clear_failures(connection: Connection, model_id: int, reason: Reason | None = None) -> list[int]:
    """Forget failures, so that their images are pending again. Returns their ids, ascending. What is gone stays so."""
    statement = delete(failures).where(failures.c.model_id == model_id, not_(is_gone(failures.c.image_id)))
    if reason is not None:
        statement = statement.where(failures.c.reason == reason.value)
    return sorted(connection.scalars(statement.returning(failures.c.image_id)))
