"""Where the time of each worker goes, for `tagonce status`. A worker writes its row when it takes a chunk, and with its
results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection, delete, select

from db.schema import workers
from db.sql.rows.upsert import insert_into

FORGOTTEN_AFTER = timedelta(days=1)
LOOK_BACK = timedelta(minutes=2)
"""Workers that wrote nothing for longer have no chunk, or have ended; they are not shown."""


class Stage(StrEnum):
    """The stages of an image, in this order."""

    FETCH = "fetch"
    DECODE = "decode"
    WAIT = "wait"
    """Waiting for the device, which other images occupy."""
    INFER = "infer"
    """On the device."""
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Work:
    """The last minute in which a worker had a chunk."""

    seconds: Mapping[Stage, float]
    """Time in each stage. Fetch and decode run in several threads, whose times are added up."""
    images: Mapping[Stage, int]
    """Number of images that passed each stage."""
    duplicates: int
    """Images whose bytes were known, which were neither decoded nor inferred."""
    active_seconds: float
    """Elapsed time in which the worker had a chunk."""

    def seconds_an_image(self, stage: Stage) -> float | None:
        """Seconds per image in a stage; None if no image passed it."""
        return self.seconds[stage] / self.images[stage] if self.images[stage] else None

    @property
    def device_busy(self) -> float | None:
        """Time in which the device was busy as a share of the active time, 0 to 1; None without active time."""
        return min(1.0, self.seconds[Stage.INFER] / self.active_seconds) if self.active_seconds else None


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process."""

    name: str
    """`host:process id`."""
    device: str
    started_at: datetime


def save(connection: Connection, model_id: int, worker: Worker, work: Work) -> None:
    """Insert or replace the row of a worker."""
    row = {
        "name": worker.name,
        "model_id": model_id,
        "device": worker.device,
        "started_at": worker.started_at,
        "seen_at": datetime.now(UTC),
        "duplicates": work.duplicates,
        "active_seconds": work.active_seconds,
        **{f"{stage}_seconds": work.seconds[stage] for stage in Stage},
        **{f"{stage}_images": work.images[stage] for stage in Stage},
    }
    statement = insert_into(connection, workers).values(row)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=row))


def forget_old(connection: Connection) -> None:
    """Delete the rows of workers that wrote nothing for `FORGOTTEN_AFTER`."""
    connection.execute(delete(workers).where(workers.c.seen_at < datetime.now(UTC) - FORGOTTEN_AFTER))


def any_since(connection: Connection, moment: datetime, model_id: int | None = None) -> bool:
    """Whether a worker, of this model or of any, has taken a chunk or written results at or after a time."""
    query = select(workers.c.name).where(workers.c.seen_at >= moment).limit(1)
    if model_id is not None:
        query = query.where(workers.c.model_id == model_id)
    return connection.scalar(query) is not None


def seen_since(connection: Connection, model_id: int, moment: datetime) -> list[tuple[Worker, Work]]:
    """The workers that took a chunk or wrote results at or after a time, sorted by name."""
    query = select(workers).where(workers.c.model_id == model_id, workers.c.seen_at >= moment).order_by(workers.c.name)
    return [
        (
            Worker(row["name"], row["device"], row["started_at"]),
            Work(
                seconds={stage: row[f"{stage}_seconds"] for stage in Stage},
                images={stage: row[f"{stage}_images"] for stage in Stage},
                duplicates=row["duplicates"],
                active_seconds=row["active_seconds"],
            ),
        )
        for row in connection.execute(query).mappings()
    ]


def together(works: Sequence[Work]) -> Work:
    """The sum over several workers."""
    return Work(
        seconds={stage: sum(work.seconds[stage] for work in works) for stage in Stage},
        images={stage: sum(work.images[stage] for work in works) for stage in Stage},
        duplicates=sum(work.duplicates for work in works),
        active_seconds=sum(work.active_seconds for work in works),
    )
