"""Failures as a list for people. `db.ledger.results` writes them, `db.ledger.run_progress` counts them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, exists, select

from db.errors import Reason
from db.schema import failures, images
from db.sql.gone_scope import in_scope
from db.sql.scores.score_sql import begins_with

_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Failed:
    """An image that failed in its present version."""

    image_id: int
    uri: str
    reason: Reason
    detail: str
    attempts: int
    failed_at: datetime


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A registered image, for display."""

    uri: str
    version: str
    has_crashed: bool
    """A worker of any model died while it processed this version. A process that opens the image may die, too."""


def stored_image(connection: Connection, image_id: int) -> StoredImage | None:
    """The image of an id; None if the id does not exist."""
    crashed = (
        exists()
        .where(failures.c.image_id == images.c.id, failures.c.image_version == images.c.version)
        .where(failures.c.reason == Reason.CRASHED)
    )
    query = select(images.c.uri, images.c.version, crashed).where(images.c.id == image_id)
    row = connection.execute(query).first()
    return None if row is None else StoredImage(*row)


def latest(
    connection: Connection, model_id: int, limit: int | None, *, reason: Reason | None = None, under: str = ""
) -> Iterator[Failed]:
    """The failures of a model as a stream, newest first.

    Args:
        limit: maximum number; None for all.
        reason: only failures of this reason.
        under: only images whose uri begins with this prefix.
    """
    columns = (failures.c.reason, failures.c.detail, failures.c.attempts, failures.c.failed_at)
    query = (
        select(images.c.id, images.c.uri, *columns)
        .join_from(failures, images, images.c.id == failures.c.image_id)
        .where(failures.c.model_id == model_id, failures.c.image_version == images.c.version)
        .where(in_scope(connection, images.c.id))
        .order_by(failures.c.failed_at.desc(), images.c.id.desc())
        .limit(limit)
    )
    if reason is not None:
        query = query.where(failures.c.reason == reason)
    if under:
        query = query.where(begins_with(under))
    with connection.execute(query, execution_options={"yield_per": _AT_ONCE}) as result:
        for row in result:
            yield Failed(row.id, row.uri, Reason(row.reason), row.detail, row.attempts, row.failed_at)
