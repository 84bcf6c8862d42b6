"""Where a model stands: done, failed by reason, pending, and how fast it goes."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, select

from db.errors import Reason
from db.ledger import gone
from db.ledger.images import count_pending
from db.schema import failures, images, predictions
from db.sql.gone_scope import in_scope
from db.sql.score_sql import begins_with

RATE_WINDOW = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class ModelProgress:
    """One look at one model, at the files as they are registered now. Costs a scan of `images` and `predictions`."""

    images: int
    done: int
    failed: Mapping[Reason, int]
    pending: int
    """Registered, with neither a prediction nor a failure for the file as it is now."""
    rate: float
    """Images a second over the last minute that had any work in it."""
    gone: int
    """Marked as no longer there: in none of the other figures."""

    @property
    def seconds_left(self) -> float | None:
        """None while nothing moves."""
        return self.pending / self.rate if self.rate else None


def progress(connection: Connection, model_id: int) -> ModelProgress:
    return ModelProgress(
        images=connection.scalar(select(func.count()).select_from(images).where(in_scope(connection, images.c.id)))
        or 0,
        done=connection.scalar(
            select(func.count())
            .select_from(predictions.join(images, images.c.id == predictions.c.image_id))
            .where(predictions.c.model_id == model_id, predictions.c.image_version == images.c.version)
            .where(in_scope(connection, images.c.id))
        )
        or 0,
        failed=failures_by_reason(connection, model_id),
        pending=count_pending(connection, model_id),
        rate=_rate(connection, model_id),
        gone=gone.count(connection),
    )


def predicted(connection: Connection, model_id: int) -> int:
    """Images that have a prediction of the model, be it of an older file."""
    query = select(func.count()).select_from(predictions)
    query = query.where(predictions.c.model_id == model_id, in_scope(connection, predictions.c.image_id))
    return connection.scalar(query) or 0


def failures_by_reason(
    connection: Connection,
    model_id: int,
    *,
    since: datetime | None = None,
    reason: Reason | None = None,
    under: str = "",
) -> dict[Reason, int]:
    """Most frequent first.

    Args:
        since: only what failed at or after this moment.
        reason: of this kind alone.
        under: only images whose uri begins with this.
    """
    count = func.count().label("n")
    query = (
        select(failures.c.reason, count)
        .join_from(failures, images, images.c.id == failures.c.image_id)
        .where(failures.c.model_id == model_id, failures.c.image_version == images.c.version)
        .where(in_scope(connection, images.c.id))
    )
    if since is not None:
        query = query.where(failures.c.failed_at >= since)
    if reason is not None:
        query = query.where(failures.c.reason == reason)
    if under:
        query = query.where(begins_with(under))
    rows = connection.execute(query.group_by(failures.c.reason).order_by(count.desc(), failures.c.reason))
    return {Reason(row.reason): row.n for row in rows}


def finished_since(connection: Connection, model_id: int, since: datetime) -> tuple[int, int]:
    """How many predictions and how many failures were written at or after a moment."""
    done, failed = (
        connection.scalar(select(func.count()).select_from(table).where(table.c.model_id == model_id, when >= since))
        or 0
        for table, when in ((predictions, predictions.c.predicted_at), (failures, failures.c.failed_at))
    )
    return done, failed


def _rate(connection: Connection, model_id: int) -> float:
    now = datetime.now(UTC)
    when = predictions.c.predicted_at
    recent = select(func.count(), func.min(when)).where(predictions.c.model_id == model_id, when >= now - RATE_WINDOW)
    count, first = connection.execute(recent).one()
    if not count:
        return 0.0
    # A run of a few seconds is not to be divided by a minute; a single chunk says nothing about a second.
    return float(count / max((now - first).total_seconds(), 1.0))
