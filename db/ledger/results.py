"""Write the results of a chunk of images in one transaction. Writing them twice has the same effect as once."""

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
    """Version of the row when the image was fetched."""
    file_bytes: int
    width: int
    """Pixels, as stored in the file; so is the height."""
    height: int
    format: str
    """Pillow's name of the format, in lower case."""
    sha256: bytes
    """Of the file, 32 bytes."""
    scores: Scores


@dataclass(frozen=True, slots=True)
class Failure:
    """An image without a prediction. It is not tried again until this failure is cleared or the file changes."""

    image_id: int
    image_version: str
    reason: Reason
    detail: str


def save(connection: Connection, model_id: int, done: Sequence[Prediction], failed: Sequence[Failure]) -> None:
    """Store predictions and failures of one model. Afterwards each image has exactly one of the two.

    Results of an older version than the registered one are dropped. A failure is dropped if its version has a
    prediction.
    """
    current = _lock(connection, [*done, *failed])
    # A file that was registered in a new version meanwhile is pending again; the result of the old file is void.
    done = sorted((one for one in done if current.get(one.image_id) == one.image_version), key=lambda one: one.image_id)
    failed = [one for one in failed if current.get(one.image_id) == one.image_version]
    if done:
        chunk_writes.update_facts(
            connection,
            [(one.image_id, one.file_bytes, one.width, one.height, one.format, one.sha256) for one in done],
        )
        # On SQLite a trigger deletes the scores as well, so a second run leaves no tag of the first one.
        connection.execute(delete(predictions).where(*_of(connection, predictions, model_id, done)))
        now = datetime.now(UTC)
        chunk_writes.insert_predictions(
            connection,
            [(model_id, one.image_id, one.image_version, now, one.scores.tag_ids, one.scores.scores) for one in done],
        )
        connection.execute(delete(failures).where(*_of(connection, failures, model_id, done)))
        moved_labels.move_labels(connection, [one.image_id for one in done])
    if failed := _not_predicted(connection, model_id, failed):
        _save_failures(connection, model_id, sorted(failed, key=lambda one: one.image_id))
        # A remaining prediction is of an older version of the file, not of the one that failed.
        connection.execute(delete(predictions).where(*_of(connection, predictions, model_id, failed)))


def _lock(connection: Connection, results: Sequence[Prediction | Failure]) -> dict[int, str]:
    """Lock the rows of images until the end of the transaction. Returns their versions by id.

    Workers that have the same images write one after the other. They lock in the order of ids, so there is no deadlock.
    Otherwise one worker could insert a prediction, and another one, which does not see it yet, a failure. SQLite has
    one writer anyway.
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
    """The failures without those of images that another worker with the same chunk predicted meanwhile."""
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
                # PostgreSQL's text type refuses NUL, and some decoders quote the file in their message.
                "detail": one.detail.replace("\0", ""),
                "attempts": 1,
                "failed_at": now,
            }
            for one in failed
        ],
    )


def clear_failures(connection: Connection, model_id: int, reason: Reason | None = None) -> list[int]:
    """Delete failures, so that their images are pending again. Failures of images that are gone are kept.

    Args:
        reason: only failures of this reason.

    Returns:
        Ids of the images, ascending.
    """
    statement = delete(failures).where(failures.c.model_id == model_id, not_(is_gone(failures.c.image_id)))
    if reason is not None:
        statement = statement.where(failures.c.reason == reason.value)
    return sorted(connection.scalars(statement.returning(failures.c.image_id)))
