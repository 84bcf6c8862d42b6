"""What every export needs: which images there are, their tags one by one, and files that are whole or not touched."""

import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote_from_bytes

import numpy as np
from sqlalchemy import ColumnElement, Connection, Select, func, or_, select

from db.errors import StopError
from db.ledger import models
from db.ledger.models import Model
from db.policy.policies import Cut
from db.read.tag_batches import read_tag_batches
from db.schema import images, predictions
from db.scores import SCALE
from db.sql.gone_scope import tagged
from db.sql.score_sql import begins_with


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
    for batch in read_tag_batches(connection, model, cut, under=under):
        tags, probabilities = names[batch.tag_ids].tolist(), (batch.scores / SCALE).tolist()
        ends = batch.offsets.tolist()
        for position, uri in enumerate(batch.uris):
            part = slice(ends[position], ends[position + 1])
            kept = dict(zip(tags[part], probabilities[part], strict=True))
            yield Tagged(uri, batch.widths[position], batch.heights[position], kept)


def count_images(
    connection: Connection, model: Model, *, where: ColumnElement[bool] | None = None, under: str = ""
) -> int:
    """How many images `read_tag_batches` yields."""
    if where is None and not under:
        # Without the table of images, which would be read from end to end.
        query = select(func.count()).select_from(predictions).where(tagged(connection, model.id))
    else:
        query = _chosen(connection, model, [func.count()], where, under)
    return connection.scalar(query) or 0


def uri_range(
    connection: Connection, model: Model, *, where: ColumnElement[bool] | None = None, under: str = ""
) -> tuple[str, str]:
    """The lowest and the highest uri in bytewise order: what the two begin with, all between them begin with."""
    columns = [func.min(images.c.uri), func.max(images.c.uri)]
    first, last = connection.execute(_chosen(connection, model, columns, where, under)).one()
    return first or "", last or ""


def uris(
    connection: Connection, model: Model, *, where: ColumnElement[bool] | None = None, under: str = ""
) -> Iterator[str]:
    """Those of the images that `read_tag_batches` yields, in any order."""
    options = {"yield_per": 10_000}
    query = _chosen(connection, model, [images.c.uri], where, under)
    yield from connection.execute(query, execution_options=options).scalars()


def uris_ending(connection: Connection, ending: str) -> list[str]:
    """Of all registered images those whose uri ends with a text, whatever its case. Reads all of them."""
    spelt = {ending.lower(), quote_from_bytes(os.fsencode(ending)).lower()}  # objects are called as they are
    matches = [func.lower(images.c.uri).endswith(one, autoescape=True) for one in sorted(spelt)]
    return list(connection.scalars(select(images.c.uri).where(or_(*matches))))


def is_registered(connection: Connection, uris: Iterable[str], sha256: bytes | None) -> bool:
    """An image is registered under one of these uris, or with this content."""
    conditions: list[ColumnElement[bool]] = [images.c.uri.in_(list(uris))]
    conditions += [images.c.sha256 == sha256] if sha256 else []
    return connection.scalar(select(images.c.id).where(or_(*conditions)).limit(1)) is not None


def _chosen(
    connection: Connection,
    model: Model,
    columns: Sequence[ColumnElement[Any]],
    where: ColumnElement[bool] | None,
    under: str,
) -> Select[Any]:
    source = predictions.join(images, images.c.id == predictions.c.image_id)
    conditions = [tagged(connection, model.id)]
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

    Who may read and write it is the umask's choice, or that of the file which it replaces.

    Raises:
        StopError: see `whole_file`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tagonce-{secrets.token_hex(8)}")
        # By open(2) and not by tempfile: its files are for us alone, and the umask can only be asked for by setting it,
        # for all threads.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield temporary
        if path.is_file():
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
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
