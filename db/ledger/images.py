"""Images: registered before they are queued, and pending until a prediction or a failure says otherwise."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, Select, and_, func, not_, or_, select

from db.ledger.gone import unmark
from db.ledger.id_set import IdSet
from db.schema import failures, images, predictions
from db.sql import registration
from db.sql.gone_scope import is_gone
from db.sql.in_list import in_list
from db.sql.registration import Known, NewImage

LOOKUP_SIZE = 5_000
"""URIs or ids in one statement: SQLite takes 32,766 parameters, PostgreSQL 65,535."""


VERSION_LENGTH = 7
"""Characters that are kept of a version: 42 bits of SHA-256, so that one change in 4 * 10 ** 12 goes unnoticed. An ETag
has 32 and more, and stands in `images` and in `predictions`; the eighth would cost 8 bytes, for alignment."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One image that somebody pointed at. Nothing of it has been read yet."""

    uri: str
    """`file:///absolute/path`, percent-encoded as RFC 8089 says, or `s3://bucket/key` with the key as it is."""
    version: str
    """Changes whenever the file does: the object's ETag, or size and mtime in ns. Empty when it is not there. What is
    stored is `stored_version` of it."""
    bytes: int | None
    """Size in bytes, None when it is not known."""


@dataclass(frozen=True, slots=True)
class Image:
    """What a worker needs to know of a row of `images`."""

    id: int
    uri: str
    version: str
    bytes: int | None
    """As the source said, or as it was when the file was last read."""


def stored_version(version: str) -> str:
    """What the database keeps of a reference's version: enough to see that it changed. A short one stays as it is."""
    if len(version) <= VERSION_LENGTH:
        return version
    digest = hashlib.sha256(version.encode()).digest()
    return base64.urlsafe_b64encode(digest[:VERSION_LENGTH])[:VERSION_LENGTH].decode()


def register(
    connection: Connection, found: Iterable[Reference], model_id: int, *, seen: IdSet | None = None
) -> list[int]:
    """Insert or refresh rows; return the ids of those that are pending for the model, in the order given.

    A row whose version changed forgets its size and hash, which belonged to the old file, and is pending again. One
    that was marked as gone is marked no longer.
    Rows in which nothing changed are not even locked.

    Args:
        found: of two with the same uri the last one counts. Thousands at once cost least.
        seen: gets the ids of all of them, pending or not.
    """
    unique = {one.uri: one for one in found}
    if not unique:
        return []
    # By uri: neighbours lie on the same pages of the index.
    rows = [NewImage(uri, stored_version(unique[uri].version), unique[uri].bytes) for uri in sorted(unique)]
    still_open = registration.unfinished(connection, rows, model_id, every=seen is not None)
    ids = _pending_ids(rows, still_open)
    if back := [row_id for _position, row_id, _changed, _pending, gone in still_open if row_id and gone]:
        unmark(connection, back)
    changed = sorted((row_id, position) for position, row_id, changed, _pending, _gone in still_open if changed)
    new = sorted(position for position, row_id, _changed, _pending, _gone in still_open if row_id is None)
    if changed or new:
        # Known rows by id, as workers lock them (`db.ledger.results`), then new ones by uri, as other producers insert
        # them: one order for all of them, so there is no deadlock.
        order = [*(position for _id, position in changed), *new]
        written = registration.write(connection, [rows[position] for position in order])
        ids |= {rows[position].uri: written[rows[position].uri] for position in new if rows[position].uri in written}
        # Other producers inserted the same ones since we looked.
        overtaken = [rows[position] for position in new if rows[position].uri not in written]
        if overtaken:
            inserted = registration.unfinished(connection, overtaken, model_id, every=seen is not None)
            ids |= _pending_ids(overtaken, inserted)
            still_open = [*still_open, *inserted]
        if seen is not None:
            seen.add(list(written.values()))
    if seen is not None:
        seen.add([row_id for _position, row_id, *_flags in still_open if row_id])
    return [ids[uri] for uri in unique if uri in ids]


def _pending_ids(rows: Sequence[NewImage], still_open: Iterable[Known]) -> dict[str, int]:
    return {
        rows[position].uri: row_id for position, row_id, _changed, pending, _gone in still_open if row_id and pending
    }


def pending_among(connection: Connection, ids: Sequence[int], model_id: int) -> list[Image]:
    """Those of the given images that are not gone and have no result for this model and their version."""
    # Result by result by its key: before the first `analyze`, PostgreSQL would join the few with all there are.
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
    """The next pending ids above `after`, ascending: the cursor of a walk over all that is pending."""
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
