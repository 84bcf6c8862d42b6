"""What every export needs: which images there are, their tags one by one, and files that are whole or not touched."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Select, func, select

from db import models
from db.errors import StopError
from db.gone import tagged
from db.kept import kept_images
from db.models import Model
from db.policies import Cut
from db.schema import images, predictions
from db.scores import SCALE
from db.thresholds import begins_with


@dataclass(frozen=True, slots=True)
class Tagged:
    """One image with the tags that a policy keeps."""

    uri: str
    width: int | None
    height: int | None
    tags: dict[str, float]
    """Name to probability, most probable first."""


def tagged_images(connection: Connection, model: Model, cut: Cut, *, under: str = "") -> Iterator[Tagged]:
    """Every image with a prediction, in the order of registration; an image that keeps no tag is there too.

    For a few images: an object for each of millions costs more than all the rest.

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


def count_images(
    connection: Connection, model: Model, *, where: ColumnElement[bool] | None = None, under: str = ""
) -> int:
    """How many images `kept_images` yields."""
    if where is None and not under:
        # Without the table of images, which would be read from end to end.
        query = select(func.count()).select_from(predictions).where(tagged(connection, model))
    else:
        query = _chosen(connection, model, [func.count()], where, under)
    return connection.scalar(query) or 0


def ends(
    connection: Connection, model: Model, *, where: ColumnElement[bool] | None = None, under: str = ""
) -> tuple[str, str]:
    """The lowest and the highest uri in bytewise order: what the two begin with, all between them begin with."""
    columns = [func.min(images.c.uri), func.max(images.c.uri)]
    first, last = connection.execute(_chosen(connection, model, columns, where, under)).one()
    return first or "", last or ""


def _chosen(
    connection: Connection,
    model: Model,
    columns: Sequence[ColumnElement[Any]],
    where: ColumnElement[bool] | None,
    under: str,
) -> Select[Any]:
    source = predictions.join(images, images.c.id == predictions.c.image_id)
    conditions = [tagged(connection, model)]
    conditions += [begins_with(under)] if under else []
    conditions += [where] if where is not None else []
    return select(*columns).select_from(source).where(*conditions)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """A text file that is there whole when the block ends well, and is not touched when it does not.

    Raises:
        StopError: the folder cannot be made or written to, or the disk is full.
    """
    with whole_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        yield file


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """The same for whatever writes files itself: the block gets the path of an empty file, which then takes the name.

    Raises:
        StopError: see `whole_file`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".tagonce-", dir=path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files that only we may read; this one is for everybody whom the umask lets.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _cannot_write(path, error) from error
        raise


def _cannot_write(path: Path, error: OSError) -> StopError:
    # pyarrow has words of its own around those of the system.
    reason = os.strerror(error.errno) if error.errno else error
    return StopError(f"Cannot write {path}: {reason}. --out names another place.")


@cache
def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
