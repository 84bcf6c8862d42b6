"""Which images an export covers, and their tags one by one."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_from_bytes

import numpy as np
from sqlalchemy import ColumnElement, Connection, Select, func, or_, select

from db.ledger import models
from db.ledger.models import Model
from db.policy.policies import Cut
from db.read.tag_batches import read_tag_batches
from db.schema import files, images, predictions
from db.scores import SCALE
from db.sql.gone_scope import tagged
from db.sql.scores.score_sql import begins_with


@dataclass(frozen=True, slots=True)
class Tagged:
    """An image with the tags that a policy keeps."""

    uri: str
    width: int | None
    height: int | None
    tags: dict[str, float]
    """Name to probability, most probable first."""


def tagged_images(connection: Connection, model: Model, cut: Cut, *, under: str = "") -> Iterator[Tagged]:
    """Every image with a prediction, in the order of registration, also those that keep no tag.

    For a few images: for millions an object each costs more than reading them (`read_tag_batches`).

    Args:
        cut: which tags to keep, from `policies.resolve`.
        under: only images whose uri begins with this.
    """
    names = np.array([tag.name for tag in models.tag_names(connection, model.id)], dtype=object)
    for batch in read_tag_batches(connection, model, cut, under=under):
        tags, probabilities = names[batch.tag_ids].tolist(), (batch.scores / SCALE).tolist()
        ends = batch.offsets.tolist()
        for position, uri in enumerate(batch.uris):
            part = slice(ends[position], ends[position + 1])
            named = dict(zip(tags[part], probabilities[part], strict=True))
            yield Tagged(uri, batch.widths[position], batch.heights[position], named)


def count_images(
    connection: Connection, model: Model, *, where: ColumnElement[bool] | None = None, under: str = ""
) -> int:
    """The number of images that `read_tag_batches` yields."""
    if where is None and not under:
        # Without the table of images, which would be read from end to end.
        query = select(func.count()).select_from(predictions).where(tagged(connection, model.id))
    else:
        query = _chosen(connection, model, [func.count()], where, under)
    return connection.scalar(query) or 0


def uri_range(
    connection: Connection, model: Model, *, where: ColumnElement[bool] | None = None, under: str = ""
) -> tuple[str, str]:
    """The lowest and the highest uri in bytewise order. Their common prefix is that of all uris between them."""
    columns = [func.min(images.c.uri), func.max(images.c.uri)]
    first, last = connection.execute(_chosen(connection, model, columns, where, under)).one()
    return first or "", last or ""


def uris(
    connection: Connection, model: Model, *, where: ColumnElement[bool] | None = None, under: str = ""
) -> Iterator[str]:
    """The uris of the images that `read_tag_batches` yields, in any order."""
    options = {"yield_per": 10_000}
    query = _chosen(connection, model, [images.c.uri], where, under)
    yield from connection.execute(query, execution_options=options).scalars()


def uris_ending(connection: Connection, ending: str) -> list[str]:
    """The uris of all registered images that end with a text, in upper or lower case. Reads all of them."""
    spelt = {ending.lower(), quote_from_bytes(os.fsencode(ending)).lower()}  # keys of objects are not percent-encoded
    matches = [func.lower(images.c.uri).endswith(one, autoescape=True) for one in sorted(spelt)]
    return list(connection.scalars(select(images.c.uri).where(or_(*matches))))


def is_registered(connection: Connection, uris: Iterable[str], sha256: bytes | None) -> bool:
    """Whether an image is registered under one of these uris, or with this SHA-256."""
    conditions: list[ColumnElement[bool]] = [images.c.uri.in_(list(uris))]
    conditions += [images.c.id.in_(select(files.c.image_id).where(files.c.sha256 == sha256))] if sha256 else []
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
