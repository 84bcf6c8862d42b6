"""Write the results of a chunk of images in one transaction. Writing them twice has the same effect as once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, delete, literal_column, not_, null, select, union_all

from db.errors import Reason
from db.ledger import changed_blocks, moved_labels
from db.schema import failures, files, images, predictions
from db.scores import Scores
from db.sql.connection.locks import lock_images
from db.sql.gone_scope import is_gone
from db.sql.in_list import in_list
from db.sql.rows import chunk_writes
from db.sql.rows.upsert import insert_into


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

    Workers that have the same images write one after the other (`db.sql.connection.locks`). Otherwise one could
    insert a prediction, and another one, which does not see it yet, a failure. A version that is registered between the
    query and the end of the transaction does not wait: the result of the old version is stored, as if it had been
    written before, and the image is pending.
    """
    ids = [*(one.image_id for one in done), *(one.image_id for one in failed)]
    lock_images(connection, ids)
    known = _known(connection, model_id, ids)
    # A file that was registered in a new version meanwhile is pending again; the result of the old file is void. An
    # image that was deleted meanwhile has no version.
    done = sorted(
        (one for one in done if known.images.get(one.image_id) == one.image_version), key=lambda one: one.image_id
    )
    failed = sorted(
        (one for one in failed if known.images.get(one.image_id) == one.image_version), key=lambda one: one.image_id
    )
    if not done and not failed:
        return
    # Another worker with the same chunk may have predicted the image meanwhile.
    failed = [one for one in failed if known.predictions.get(one.image_id) != one.image_version]
    # A result replaces that of an older version, or the same one if a chunk runs twice.
    predicted = {one.image_id for one in done}
    written = predicted | {one.image_id for one in failed}
    deleted = written & known.predictions.keys()
    _delete(connection, predictions, deleted, model_id)
    changed_blocks.mark(connection, model_id, predicted | deleted)
    if done:
        _save_predictions(connection, model_id, done)
        _delete(connection, failures, predicted & known.failures.keys(), model_id)
        _save_files(connection, done, known.files)
        moved_labels.move_labels(connection, [one.image_id for one in done])
    if failed:
        _save_failures(connection, model_id, failed)


class _Known(NamedTuple):
    """What the database has of some images. Most chunks are of new images, of which it has nothing."""

    images: dict[int, str]
    """Registered versions, by the id of the image."""
    files: dict[int, tuple[str, bytes]]
    """Version and sha256."""
    predictions: dict[int, str]
    """Versions; so are the failures."""
    failures: dict[int, str]


def _known(connection: Connection, model_id: int, ids: Sequence[int]) -> _Known:
    of_images = select(literal_column("0"), images.c.id, images.c.version, null())
    of_files = select(literal_column("1"), files.c.image_id, files.c.image_version, files.c.sha256)
    queries = [
        of_images.where(in_list(connection, images.c.id, ids)),
        of_files.where(in_list(connection, files.c.image_id, ids)),
    ]
    for number, table in enumerate((predictions, failures), start=2):
        columns: tuple[ColumnElement[Any], ...] = (
            literal_column(str(number)),
            table.c.image_id,
            table.c.image_version,
            null(),
        )
        queries.append(select(*columns).where(table.c.model_id == model_id, in_list(connection, table.c.image_id, ids)))
    found: tuple[dict[int, Any], ...] = ({}, {}, {}, {})
    for number, image_id, version, sha256 in connection.execute(union_all(*queries)).all():
        found[number][image_id] = version if sha256 is None else (version, sha256)
    return _Known(*found)


def _delete(connection: Connection, table: Table, ids: Collection[int], model_id: int | None = None) -> None:
    if not ids:
        return
    statement = delete(table).where(in_list(connection, table.c.image_id, sorted(ids)))
    connection.execute(statement if model_id is None else statement.where(table.c.model_id == model_id))


def _save_predictions(connection: Connection, model_id: int, done: Sequence[Prediction]) -> None:
    rows = [(one.image_id, one.image_version, one.scores.tag_ids, one.scores.scores) for one in done]
    chunk_writes.insert_predictions(connection, model_id, datetime.now(UTC), rows)


def _save_files(connection: Connection, done: Sequence[Prediction], known: Mapping[int, tuple[str, bytes]]) -> None:
    """Insert what was found in the files, unless another model has found the same."""
    new = [one for one in done if known.get(one.image_id) != (one.image_version, one.sha256)]
    _delete(connection, files, {one.image_id for one in new} & known.keys())
    if new:
        chunk_writes.insert_files(
            connection,
            [
                (one.image_id, one.file_bytes, one.width, one.height, one.image_version, one.format, one.sha256)
                for one in new
            ],
        )


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
