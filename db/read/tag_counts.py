"""The number of images that keep each tag under a policy."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import BigInteger, ColumnElement, Connection, Float, Select, and_, func, select

from db.ledger import models
from db.ledger.models import Model
from db.policy.policies import Cut
from db.read.tag_batches import read_tag_batches
from db.schema import predictions, tags
from db.scores import SCALE
from db.sql.score_sql import NumberReaching, tags_reaching


@dataclass(frozen=True, slots=True)
class TagCount:
    """A tag that some image keeps."""

    tag: str
    category: str | None
    images: int
    """Images that keep the tag."""
    mean_probability: float
    """Over these images; up to 0.0001 too low, because scores are rounded down."""


def tag_counts(
    connection: Connection,
    model: Model,
    cut: Cut,
    *,
    where: ColumnElement[bool] | None = None,
    under: str = "",
) -> list[TagCount]:
    """The kept tags, most frequent first, ties in the model's order. For arguments see `read_tag_batches`."""
    if cut.uniform is not None and where is None and not under:
        rows = connection.execute(_tag_counts_at(connection, model, cut.uniform))
        return [TagCount(row.tag, row.category, row.images, row.mean_probability) for row in rows]
    names = models.tag_names(connection, model.id)
    images, sums = np.zeros(len(names), dtype=np.int64), np.zeros(len(names))
    for batch in read_tag_batches(connection, model, cut, where=where, under=under):
        images += np.bincount(batch.tag_ids, minlength=len(names))
        sums += np.bincount(batch.tag_ids, weights=batch.scores, minlength=len(names))
    order = np.lexsort((np.arange(len(names)), -images))[: np.count_nonzero(images)].tolist()
    return [
        TagCount(names[one].name, names[one].category, int(images[one]), float(sums[one] / images[one] / SCALE))
        for one in order
    ]


def count_at(model: Model, score: int) -> Select[Any]:
    """The query of (images, images that keep a tag, tags of all images) at one threshold, in ten-thousandths.

    The columns are `images`, `tagged` and `tags`.
    """
    per_image = select(NumberReaching(score).label("n")).where(predictions.c.model_id == model.id).subquery()
    columns: list[ColumnElement[Any]] = [
        func.count().label("images"),
        func.count().filter(per_image.c.n > 0).label("tagged"),
        func.coalesce(func.sum(per_image.c.n), 0).cast(BigInteger).label("tags"),
    ]
    return select(*columns).select_from(per_image)


def _tag_counts_at(connection: Connection, model: Model, score: int) -> Select[Any]:
    """The query of (tag, category, images, mean_probability) at a score, most frequent first."""
    rows = tags_reaching(connection, model.id, score).subquery()
    # Counted by tag id first: joining names to every score would cost more than everything else.
    counted = (
        select(rows.c.tag_id, func.count().label("images"), func.avg(rows.c.score).label("mean"))
        .group_by(rows.c.tag_id)
        .subquery()
    )
    return (
        select(
            tags.c.name.label("tag"),
            tags.c.category,
            counted.c.images,
            (counted.c.mean / 10_000.0).cast(Float).label("mean_probability"),
        )
        .select_from(counted.join(tags, and_(tags.c.tag_id == counted.c.tag_id, tags.c.model_id == model.id)))
        .order_by(counted.c.images.desc(), tags.c.tag_id)
    )
