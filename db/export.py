"""Captions and tables from stored scores: what a threshold keeps, an image at a time, and files that hold it."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
from sqlalchemy import Connection, func, select

from db import models
from db.errors import StopError
from db.kept import kept_images
from db.models import Model
from db.policies import Cut
from db.schema import images, predictions
from db.scores import SCALE
from db.thresholds import begins_with


@dataclass(frozen=True, slots=True)
class Tagged:
    """One image with the tags that a threshold keeps."""

    uri: str
    width: int | None
    height: int | None
    tags: dict[str, float]
    """Name to probability, most probable first."""

    def caption(self, *, separator: str = ", ", underscores: bool = False) -> str:
        """The tags as trainers read them."""
        text = separator.join(self.tags)
        return text if underscores else text.replace("_", " ")


def tagged_images(connection: Connection, model: Model, cut: Cut, *, under: str = "") -> Iterator[Tagged]:
    """Every image with a prediction, in the order of registration; an image that keeps no tag is there too.

    Args:
        cut: what to keep, from `policies.resolve`.
        under: only images whose uri begins with this.
    """
    names = np.array([tag.name for tag in models.tag_names(connection, model.id)], dtype=object)
    for batch in kept_images(connection, model, cut, under=under):
        tags, probabilities = names[batch.tag_ids].tolist(), (batch.scores / SCALE).tolist()
        ends = batch.offsets.tolist()
        for position, uri in enumerate(batch.uris):
            part = slice(ends[position], ends[position + 1])
            kept = dict(zip(tags[part], probabilities[part], strict=True))
            yield Tagged(uri, batch.widths[position], batch.heights[position], kept)


def count_images(connection: Connection, model: Model, *, under: str = "") -> int:
    """How many `tagged_images` yields."""
    query = select(func.count()).select_from(predictions).where(predictions.c.model_id == model.id)
    if under:
        query = query.join_from(predictions, images, images.c.id == predictions.c.image_id).where(begins_with(under))
    return connection.scalar(query) or 0


def uri_range(connection: Connection, model: Model, *, under: str = "") -> tuple[str, str] | None:
    """The first and the last uri in bytewise order, None when there is none."""
    query = (
        select(func.min(images.c.uri), func.max(images.c.uri))
        .select_from(predictions.join(images, images.c.id == predictions.c.image_id))
        .where(predictions.c.model_id == model.id)
    )
    if under:
        query = query.where(begins_with(under))
    first, last = connection.execute(query).one()
    return None if first is None else (first, last)


def jsonl_line(tagged: Tagged, *, separator: str = ", ", underscores: bool = False) -> str:
    """One line of JSON: uri, width, height, caption, and every kept tag with its probability."""
    row = {
        "uri": tagged.uri,
        "width": tagged.width,
        "height": tagged.height,
        "caption": tagged.caption(separator=separator, underscores=underscores),
        "tags": tagged.tags,
    }
    return json.dumps(row, ensure_ascii=False)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """A text file that is there whole when the block ends well, and is not touched when it does not.

    Raises:
        StopError: the folder cannot be made or written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".tagonce-", dir=path.parent)
    except OSError as error:
        raise StopError(f"Cannot write {path}: {error.strerror}. --out names another place.") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            yield file
        # mkstemp makes files that only we may read; this one is for everybody whom the umask lets.
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@cache
def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
