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
from sqlalchemy import ColumnElement, Connection, and_, func, select

from db import models
from db.errors import StopError
from db.models import Model
from db.schema import images, predictions
from db.scores import SCALE, Scores
from db.thresholds import images_at

ROWS_AT_ONCE = 2_000
"""Fetched from the database in one go: memory stays flat at any size."""


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


def tagged_images(connection: Connection, model: Model, score: int, *, under: str = "") -> Iterator[Tagged]:
    """Every image with a prediction, in the order of registration; an image that keeps no tag is there too.

    Args:
        score: the threshold, from `thresholds.score_for`.
        under: only images whose uri begins with this.
    """
    names = np.array([tag.name for tag in models.tag_names(connection, model.id)], dtype=object)
    query = images_at(model, score).order_by(predictions.c.image_id)
    if under:
        query = query.where(_begins_with(under))
    for row in connection.execution_options(yield_per=ROWS_AT_ONCE).execute(query):
        yield Tagged(row.uri, row.width, row.height, _named(row.kept, names))


def count_images(connection: Connection, model: Model, *, under: str = "") -> int:
    """How many `tagged_images` yields."""
    query = select(func.count()).select_from(predictions).where(predictions.c.model_id == model.id)
    if under:
        query = query.join_from(predictions, images, images.c.id == predictions.c.image_id).where(_begins_with(under))
    return connection.scalar(query) or 0


def uri_range(connection: Connection, model: Model, *, under: str = "") -> tuple[str, str] | None:
    """The first and the last uri in bytewise order, None when there is none."""
    query = (
        select(func.min(images.c.uri), func.max(images.c.uri))
        .select_from(predictions.join(images, images.c.id == predictions.c.image_id))
        .where(predictions.c.model_id == model.id)
    )
    if under:
        query = query.where(_begins_with(under))
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


def _begins_with(prefix: str) -> ColumnElement[bool]:
    # A range, so that the index on uri serves it; LIKE would need its wildcards escaped and no locale in the way.
    # Two comparisons, since PostgreSQL's BETWEEN takes no collation at its bounds.
    return and_(images.c.uri >= prefix, images.c.uri <= prefix + "\U0010ffff")


def _named(kept: Scores, names: "np.ndarray[tuple[int], np.dtype[np.object_]]") -> dict[str, float]:
    # Ascending by score; lexsort's last key is the first that counts, and equal scores go by the model's own order.
    order = np.lexsort((kept.tag_ids, -kept.scores.astype(np.int32)))
    return dict(zip(names[kept.tag_ids[order]].tolist(), (kept.scores[order] / SCALE).tolist(), strict=True))


@cache
def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
