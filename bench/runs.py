"""One run over a folder of photographs: its parameters, its measurements, and readers of its results."""

import csv
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import func, select

from db.database import open_database
from db.schema import images, predictions, tag_scores
from db.scores import SCALE

Found = npt.NDArray[np.float32]
"""Probabilities [images in order of their names, tags]; NaN where a tag was not kept."""


@dataclass(frozen=True)
class Setup:
    """Parameters that all compared runs share."""

    model: str
    """As `tagonce --model` takes it."""
    tags: int
    photos: Path
    batch_size: int
    device: str
    precision: str

    @property
    def names(self) -> dict[str, int]:
        """Names of the photographs, with their positions."""
        return {name: number for number, name in enumerate(sorted(path.name for path in self.photos.iterdir()))}

    @property
    def options(self) -> list[str]:
        """The parameters as options of a command line."""
        return ["--batch-size", str(self.batch_size), "--device", self.device, "--precision", self.precision]

    def nothing(self) -> Found:
        """An empty result, to be filled."""
        return np.full((len(self.names), self.tags), np.nan, np.float32)


@dataclass(frozen=True)
class Run:
    """Measurements and result of a run."""

    images_per_second: float
    whole_seconds: float
    """From starting the first command to the last row."""
    found: Found
    cpu_seconds: float | None = None
    """An image, of the model alone."""


def from_csv(setup: Setup, file: Path) -> Found:
    """Read rows (name, position of the tag, its name, probability)."""
    found, numbers = setup.nothing(), setup.names
    with file.open(newline="", encoding="utf-8") as opened:
        for name, tag, _tag_name, probability in csv.reader(opened):
            found[numbers[name], int(tag)] = float(probability)
    return found


def from_parquet(setup: Setup, folder: Path) -> Found:
    """Read rows (image, tags, probabilities)."""
    from pyarrow import parquet

    found, numbers = setup.nothing(), setup.names
    for row in parquet.read_table(folder).to_pylist():
        found[numbers[row["image"]], row["tags"]] = row["probabilities"]
    return found


def from_database(setup: Setup, url: str) -> Found:
    """Read the scores of the only model in a database."""
    found, numbers = setup.nothing(), setup.names
    scores = select(images.c.uri, tag_scores.c.tag_id, tag_scores.c.score)
    database = open_database(url, create=False)
    with database.read() as connection:
        for uri, tag, score in connection.execute(scores.join(images, images.c.id == tag_scores.c.image_id)):
            found[numbers[uri.rpartition("/")[2]], tag] = score / SCALE
    database.close()
    return found


def times(url: str) -> tuple[int, float, float]:
    """Number of predictions; time of the first registration and of the last prediction (seconds since the epoch)."""
    database = open_database(url, create=False)
    with database.read() as connection:
        number = connection.scalar(select(func.count()).select_from(predictions)) or 0
        moments: tuple[Any, ...] = (
            connection.scalar(select(func.min(images.c.added_at))),
            connection.scalar(select(func.max(predictions.c.predicted_at))),
        )
    database.close()
    first, last = (moment.timestamp() if isinstance(moment, datetime) else 0.0 for moment in moments)
    return number, first, last
