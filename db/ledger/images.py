"""Images: registered before they are queued, and pending until they have a prediction or a failure."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Connection, Select, and_, func, not_, or_, select

from db.ledger.gone import unmark
from db.schema import failures, images, predictions
from db.sql.connection.locks import lock_images
from db.sql.gone_scope import is_gone
from db.sql.in_list import in_list
from db.sql.rows import registration
from db.sql.rows.registration import Known, NewImage

if TYPE_CHECKING:
    from db.arrays.id_set import IdSet

LOOKUP_SIZE = 5_000
"""Uris or ids in one statement: SQLite accepts 32,766 parameters, PostgreSQL 65,535."""


VERSION_LENGTH = 7
"""Characters stored of a version: 42 bits of SHA-256, so that one change in 4 * 10 ** 12 goes unnoticed. An ETag has 32
or more, and `images` and `predictions` each have a copy. An eighth character would cost 8 bytes, because of alignment.
"""


@dataclass(frozen=True, slots=True)
class Reference:
    """One image as a source lists it. Its bytes have not been read yet."""

    uri: str
    """`file:///absolute/path`, percent-encoded by RFC 8089, or `s3://bucket/key` with the key unchanged."""
    version: str
    """Changes whenever the file does: the object's ETag, or size and mtime in ns. Empty if the file does not exist. The
    database stores `stored_version` of it."""
    bytes: int | None
    """Size in bytes; None if unknown."""


@dataclass(frozen=True, slots=True)
class Image:
    """The columns of `images` that a worker needs."""

    id: int
    uri: str
    version: str
    bytes: int | None
    """Size in bytes as listed by the source; None if unknown."""


def stored_version(version: str) -> str:
    """The form in which the database stores the version of a reference: a digest that shows changes.

    A version of up to `VERSION_LENGTH` characters is stored unchanged.
    """
    if len(version) <= VERSION_LENGTH:
        return version
    digest = hashlib.sha256(version.encode()).digest()
    return base64.urlsafe_b64encode(digest[:VERSION_LENGTH])[:VERSION_LENGTH].decode()


def register(
    connection: Connection, found: Iterable[Reference], model_id: int, *, seen: "IdSet | None" = None
) -> list[int]:
    """Insert or update the rows of references. Returns the ids that are pending for the model, ascending.

    A row whose version changed is pending again. Its row of `files` names the old version, and is ignored. Marks as
    gone are removed. Images without a change are not locked.

    Args:
        found: of two references with the same uri the last one counts. Thousands per call cost least.
        seen: receives the ids of all references, pending or not.
    """
    unique = {one.uri: one for one in found}
    if not unique:
        return []
    # Sorted by uri: neighbours lie on the same pages of the index.
    rows = [NewImage(uri, stored_version(unique[uri].version), unique[uri].bytes) for uri in sorted(unique)]
    unfinished = registration.unfinished(connection, rows, model_id, every=seen is not None)
    ids = _pending_ids(rows, unfinished)
    # Of the images of one lock, only one transaction updates or deletes rows, and new rows are written in the order of
    # uris, as other producers insert them. So there is no deadlock.
    touched = [row_id for _position, row_id, changed, _pending, gone in unfinished if row_id and (changed or gone)]
    lock_images(connection, touched)
    if seen_again := [row_id for _position, row_id, _changed, _pending, gone in unfinished if row_id and gone]:
        unmark(connection, seen_again)
    changed = sorted((row_id, position) for position, row_id, changed, _pending, _gone in unfinished if changed)
    new = sorted(position for position, row_id, _changed, _pending, _gone in unfinished if row_id is None)
    if changed or new:
        order = [*(position for _id, position in changed), *new]
        written = registration.write(connection, [rows[position] for position in order])
        ids |= {rows[position].uri: written[rows[position].uri] for position in new if rows[position].uri in written}
        # Rows that other producers inserted since the query above.
        overtaken = [rows[position] for position in new if rows[position].uri not in written]
        if overtaken:
            inserted = registration.unfinished(connection, overtaken, model_id, every=seen is not None)
            ids |= _pending_ids(overtaken, inserted)
            unfinished = [*unfinished, *inserted]
        if seen is not None:
            seen.add(list(written.values()))
    if seen is not None:
        seen.add([row_id for _position, row_id, *_flags in unfinished if row_id])
    return sorted(ids.values())  # chunks of neighbouring ids: their workers take different locks


def _pending_ids(rows: Sequence[NewImage], unfinished: Iterable[Known]) -> dict[str, int]:
    return {
        rows[position].uri: row_id for position, row_id, _changed, pending, _gone in unfinished if row_id and pending
    }


def pending_among(connection: Connection, ids: Sequence[int], model_id: int) -> list[Image]:
    """The given images that are not gone and have no result of this model for their version, in the order of ids."""
    # Each result is looked up by its key: before the first `analyze`, PostgreSQL would join the few with all results.
    results = [
        select(table.c.image_version)
        .where(table.c.model_id == model_id, table.c.image_id == images.c.id)
        .correlate(images)
        .scalar_subquery()
        for table in (predictions, failures)
    ]
    query = (
        select(images.c.id, images.c.uri, images.c.version, images.c.bytes)
        .where(
            in_list(connection, images.c.id, ids),
            not_(is_gone(images.c.id)),
            *(images.c.version.is_distinct_from(one) for one in results),
        )
        .order_by(images.c.id)
    )
    return [Image(row.id, row.uri, row.version, row.bytes) for row in connection.execute(query)]


def pending_after(connection: Connection, model_id: int, after: int, limit: int) -> list[int]:
    """The next pending ids above `after`, ascending, at most `limit`: one step of a walk over all pending images."""
    query = _pending(model_id, images.c.id).where(images.c.id > after).order_by(images.c.id).limit(limit)
    return list(connection.scalars(query))


def count_pending(connection: Connection, model_id: int) -> int:
    return connection.scalar(select(func.count()).select_from(_pending(model_id, images.c.id).subquery())) or 0


def _pending(model_id: int, *columns: Column[Any]) -> Select[Any]:
    predicted = and_(predictions.c.model_id == model_id, predictions.c.image_id == images.c.id)
    failed = and_(failures.c.model_id == model_id, failures.c.image_id == images.c.id)
    return (
        select(*columns)
        .select_from(images.outerjoin(predictions, predicted).outerjoin(failures, failed))
        .where(
            not_(is_gone(images.c.id)),
            or_(predictions.c.image_id.is_(None), predictions.c.image_version != images.c.version),
            or_(failures.c.image_id.is_(None), failures.c.image_version != images.c.version),
        )
    )
