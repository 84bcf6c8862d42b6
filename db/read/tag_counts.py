"""The number of images that keep each tag under a policy."""

from dataclasses import dataclass

import numpy as np
from sqlalchemy import ColumnElement, Connection

from db.ledger import models
from db.ledger.models import Model
from db.policy.policies import Cut
from db.postings.counts import sums_of_tags
from db.read.tag_batches import read_tag_batches
from db.scores import SCALE


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
    names = models.tag_names(connection, model.id)
    if not cut.has_rules and where is None and not under:
        images, sums = sums_of_tags(connection, model, cut.scores)
    else:
        images, sums = np.zeros(len(names), dtype=np.int64), np.zeros(len(names))
        for batch in read_tag_batches(connection, model, cut, where=where, under=under):
            images += np.bincount(batch.tag_ids, minlength=len(names))
            sums += np.bincount(batch.tag_ids, weights=batch.scores, minlength=len(names))
    order = np.lexsort((np.arange(len(names)), -images))[: np.count_nonzero(images)].tolist()
    return [
        TagCount(names[one].name, names[one].category, int(images[one]), float(sums[one] / images[one] / SCALE))
        for one in order
    ]
