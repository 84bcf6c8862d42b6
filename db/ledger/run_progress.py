"""Progress of a model: images done, failed by reason and pending, and the rate."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, select

from db.errors import Reason
from db.ledger import gone
from db.ledger.images import count_pending
from db.schema import failures, images, predictions
from db.sql.gone_scope import in_scope
from db.sql.scores.score_sql import begins_with

RATE_WINDOW = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class ModelProgress:
    """Progress of one model on the files as registered now. Costs a scan of `images` and `predictions`."""

    images: int
    done: int
    failed: Mapping[Reason, int]
    pending: int
    """Registered, with neither a prediction nor a failure for the registered version."""
    rate: float
    """Images per second: predictions of the last 60 seconds, over the time since the first of them."""
    gone: int
    """Marked as gone; not included in the other figures."""

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until nothing is pending; None if the rate is 0."""
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
    """Number of images that have a prediction of the model, of any version of the file."""
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
    """Number of images by reason, most frequent first.

    Args:
        since: only failures at or after this time.
        reason: only this reason.
        under: only images whose uri begins with this prefix.
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
    """(predictions, failures) of the model written at or after a time."""
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
    # A run of a few seconds must not be divided by a minute. At least a second, since a single chunk gives no rate.
    return float(count / max((now - first).total_seconds(), 1.0))
