"""The number of images that keep each tag under a policy."""

from dataclasses import dataclass

import numpy as np
from sqlalchemy import ColumnElement, Connection

from db.ledger import models
from db.ledger.models import Model
from db.policy.policies import Cut
from db.postings.counts import sums_of_tags
from db.read.tag_batches import read_tag_batches
from db.scores import NEVER, SCALE
from db.sql.scores.tag_sums import can_sum_best, sums_of_best


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
    groups = cut.groups
    by_thresholds = where is None and not under and cut.top is None and cut.mcut is None
    if by_thresholds and groups is None:
        images, sums = sums_of_tags(connection, model, cut.scores)
    elif by_thresholds and groups is not None and can_sum_best(connection, groups):
        alone = np.where(groups < 0, cut.scores, NEVER).astype(np.int16)
        images, sums = sums_of_tags(connection, model, alone)
        for number in range(int(groups.max()) + 1):
            group = np.flatnonzero((groups == number) & (cut.scores < NEVER)).tolist()
            if group:
                images[group], sums[group] = sums_of_best(connection, model.id, group, cut.scores)
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
