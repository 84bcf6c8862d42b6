"""How often each tag is kept, by whatever policy."""

from dataclasses import dataclass

import numpy as np
from sqlalchemy import ColumnElement, Connection

from db.ledger import models
from db.ledger.models import Model
from db.policy.policies import Cut
from db.read.tag_batches import read_tag_batches
from db.scores import SCALE
from db.sql.score_sql import tag_counts_at


@dataclass(frozen=True, slots=True)
class TagCount:
    """A tag that some image keeps."""

    tag: str
    category: str | None
    images: int
    mean_probability: float
    """Over the images that keep it; up to 0.0001 too low, as scores are."""


def tag_counts(
    connection: Connection,
    model: Model,
    cut: Cut,
    *,
    where: ColumnElement[bool] | None = None,
    under: str = "",
) -> list[TagCount]:
    """Most frequent first, equally frequent ones in the model's order. Arguments as of `kept.read_tag_batches`."""
    if cut.uniform is not None and where is None and not under:
        rows = connection.execute(tag_counts_at(connection, model, cut.uniform))
        return [TagCount(row.tag, row.category, row.images, row.mean_probability) for row in rows]
    tags = models.tag_names(connection, model.id)
    images, sums = np.zeros(len(tags), dtype=np.int64), np.zeros(len(tags))
    for batch in read_tag_batches(connection, model, cut, where=where, under=under):
        images += np.bincount(batch.tag_ids, minlength=len(tags))
        sums += np.bincount(batch.tag_ids, weights=batch.scores, minlength=len(tags))
    order = np.lexsort((np.arange(len(tags)), -images))[: np.count_nonzero(images)].tolist()
    return [
        TagCount(tags[one].name, tags[one].category, int(images[one]), float(sums[one] / images[one] / SCALE))
        for one in order
    ]
