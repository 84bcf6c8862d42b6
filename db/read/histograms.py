"""The distribution of one tag's probabilities over the collection. It needs no ground truth."""

from dataclasses import dataclass

import numpy as np
from sqlalchemy import ColumnElement, Connection, func, literal, select

from db.arrays.types import Int64Array
from db.ledger.models import Model
from db.postings import counts
from db.postings.block_format import FINE_STEP
from db.postings.counts import Plan
from db.schema import predictions
from db.scores import NEVER, SCALE
from db.sql.gone_scope import tagged
from db.sql.scores.conditions import ScoreOf


@dataclass(frozen=True, slots=True)
class Histogram:
    """The scores of a tag in bins of equal width from 0 to 1. The last bin includes 1."""

    images: int
    """Images that the model has tagged."""
    counts: list[int]
    """(bins,) images whose score lies in each bin."""

    @property
    def not_stored(self) -> int:
        """Images whose score of the tag is below the model's floor."""
        return self.images - sum(self.counts)

    @property
    def edges(self) -> list[float]:
        """(bins + 1,) probabilities."""
        return [number / len(self.counts) for number in range(len(self.counts) + 1)]


def histogram(connection: Connection, model: Model, tag_id: int, bins: int) -> Histogram:
    """Count the scores of a tag.

    Args:
        bins: number of bins, 1 or more.
    """
    plan = counts.plan(connection, model.id)
    # Stored steps below the floor of the postings are whole bins, or parts of one.
    if plan is None or (SCALE // FINE_STEP) % bins:
        return Histogram(*_of_rows(connection, tag_id, bins, tagged(connection, model.id)))
    _images, found = _of_rows(connection, tag_id, bins, plan.added)
    total = np.array(found, dtype=np.int64) + _of_postings(connection, model, tag_id, bins, plan)
    if plan.subtracted is not None:
        total -= _of_rows(connection, tag_id, bins, plan.subtracted)[1]
    return Histogram(counts.number_of_images(connection, model.id, plan), total.tolist())


def _of_postings(connection: Connection, model: Model, tag_id: int, bins: int, plan: Plan) -> Int64Array:
    found = np.zeros(bins, dtype=np.int64)
    lows = np.full(tag_id + 1, NEVER, dtype=np.int16)
    lows[tag_id] = 0
    for _tags, scores in counts.scores_of_tags(connection, model.id, plan.state, lows):
        found += np.bincount(_bins_of(scores, bins), minlength=bins)
    for first, steps, of_steps in counts.low_counts(connection, model, plan.state, [tag_id]):
        step_bins = _bins_of(np.array(steps, dtype=np.int64) * FINE_STEP, bins)
        found += np.bincount(step_bins, weights=of_steps[tag_id - first], minlength=bins).astype(np.int64)
    return found


def _bins_of(scores: Int64Array, bins: int) -> Int64Array:
    return np.minimum(scores * bins // SCALE, bins - 1)


def _of_rows(connection: Connection, tag_id: int, bins: int, where: ColumnElement[bool]) -> tuple[int, list[int]]:
    """(images, images in each bin) of the rows of `predictions` that a condition selects, in one statement."""
    scored = select(ScoreOf(tag_id).label("score")).select_from(predictions).where(where).subquery()
    # Integer arithmetic, so that no rounding moves a score over an edge.
    binned = select((scored.c.score * literal(bins)).op("/")(literal(SCALE)).label("bin")).subquery()
    query = select(binned.c.bin, func.count().label("images")).group_by(binned.c.bin)
    found = [0] * bins
    images = 0
    for row in connection.execute(query):
        images += row.images
        if row.bin is not None:
            found[min(row.bin, bins - 1)] += row.images
    return images, found
