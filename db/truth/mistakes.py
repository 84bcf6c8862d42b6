"""Likely mistakes in true tags: tags given at a low score, and tags not given at a high score."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sqlalchemy import ColumnElement, Connection

from db.arrays.types import Int16Array, Int32Array, Int64Array
from db.errors import ThresholdError
from db.ledger import models
from db.ledger.models import Model
from db.policy.policies import below_floor
from db.read.tag_batches import TagBatch
from db.scores import TAG_ID_BITS, to_probability
from db.truth.evaluation import labelled_images
from db.truth.truth import Truth

BELOW = 500
"""A given tag with a lower score, 0.05, is suspect."""
ABOVE = 9_000
"""A tag that was not given, with at least this score, 0.9, may be missing."""

_NOT_STORED = -1


@dataclass(frozen=True, slots=True)
class Mistake:
    """A tag of an image on which people and the model disagree."""

    image_id: int
    uri: str
    tag: str
    kind: Literal["given", "missing"]
    """`given`: given by people, with a low score. `missing`: not given, or judged wrong, with a high score."""
    probability: float | None
    """None below the model's floor: it is not stored."""


def find_mistakes(
    connection: Connection,
    model: Model,
    truth: Truth,
    *,
    below: int | None = None,
    above: int = ABOVE,
    where: ColumnElement[bool] | None = None,
    tags: Collection[int] | None = None,
) -> Iterator[Mistake]:
    """Yield likely mistakes by image id; within an image `given` before `missing`, then by tag id.

    Args:
        below: a score; given tags with a lower score are suspect. None: `BELOW`, or the floor if it is higher.
        above: a score; tags at or above it that were not given may be missing.
        where: a condition on `predictions` and `images`.
        tags: ids of the tags to examine; None for all.

    Raises:
        ThresholdError: `below` or `above` is below the model's floor.
    """
    if below is None:
        below = max(BELOW, model.floor)
    if min(below, above) < model.floor:
        raise ThresholdError(below_floor(model, f"mistakes at {to_probability(min(below, above)):g}"))
    return _stream(connection, model, truth, (below, above), where, tags)


def _stream(
    connection: Connection,
    model: Model,
    truth: Truth,
    limits: tuple[int, int],
    where: ColumnElement[bool] | None,
    tags: Collection[int] | None,
) -> Iterator[Mistake]:
    below, above = limits
    names = [tag.name for tag in models.tag_names(connection, model.id)]
    wanted = np.full(len(names), fill_value=tags is None)
    wanted[list(tags or ())] = True
    for batch, positions in labelled_images(connection, model, truth, model.floor, len(names), where=where):
        rows, tag_ids = truth.pairs(positions)
        scores = _scores(batch, rows, tag_ids)
        doubtful = (scores < below) & wanted[tag_ids]
        sure = (batch.scores >= above) & wanted[batch.tag_ids] & truth.known(batch, positions, len(names))
        sure &= ~truth.given(batch, positions, len(names))
        rows = np.concatenate([rows[doubtful], batch.rows[sure]])
        tag_ids = np.concatenate([tag_ids[doubtful], batch.tag_ids[sure]])
        scores = np.concatenate([scores[doubtful], batch.scores[sure]])
        missing = np.arange(rows.size) >= int(doubtful.sum())
        order = np.lexsort((tag_ids, missing, rows))
        for row, tag_id, score, is_missing in zip(
            *(column[order].tolist() for column in (rows, tag_ids, scores, missing)), strict=True
        ):
            yield Mistake(
                batch.image_ids[row],
                batch.uris[row],
                names[tag_id],
                "missing" if is_missing else "given",
                None if score == _NOT_STORED else to_probability(score),
            )


def _scores(batch: TagBatch, rows: Int64Array, tag_ids: Int32Array) -> Int16Array:
    """(pairs,) the score of each (row, tag id) in a batch; _NOT_STORED if it is not stored."""
    if not batch.tag_ids.size:
        return np.full(rows.size, _NOT_STORED, dtype=np.int16)
    stored = batch.rows << TAG_ID_BITS | batch.tag_ids.astype(np.int64)
    order = np.argsort(stored)
    wanted = rows << TAG_ID_BITS | tag_ids.astype(np.int64)
    at = order[np.minimum(np.searchsorted(stored, wanted, sorter=order), order.size - 1)]
    return np.where(stored[at] == wanted, batch.scores[at], np.int16(_NOT_STORED))
