"""Likely mistakes in true tags: given where the model sees nothing, or not given where it is sure."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sqlalchemy import ColumnElement, Connection

from db.errors import ThresholdError
from db.ledger import models
from db.ledger.models import Model
from db.read.tag_batches import Int64Array, TagBatch
from db.schema import Int16Array
from db.scores import to_probability
from db.truth.evaluation import labelled_images
from db.truth.truth import Truth

BELOW = 500
"""A tag that people gave and that is less probable than 0.05 is suspect."""
ABOVE = 9_000
"""A tag that nobody gave and that is at least so probable, 0.9, may be missing."""

_NOT_STORED = -1


@dataclass(frozen=True, slots=True)
class Mistake:
    """A tag of an image on which people and the model differ widely."""

    image_id: int
    uri: str
    tag: str
    kind: Literal["given", "missing"]
    """`given` by people while the model says no; or `missing` while the model says yes: of labels, judged wrong."""
    probability: float | None
    """None where it lies below the model's floor, so that it is not stored."""


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
    """By image, in the order of registration; within an image the given ones first, each by tag id.

    Args:
        below: a score; given tags with a lower one are suspect. None: `BELOW`, or the floor where that is higher.
        above: a score; tags at or above it that nobody gave may be missing.
        where: a condition on `predictions` and `images`.
        tags: the ids of the tags to look at; None for all.

    Raises:
        ThresholdError: `below` or `above` is below the model's floor.
    """
    if below is None:
        below = max(BELOW, model.floor)
    if min(below, above) < model.floor:
        floor = f"{to_probability(model.floor):g}"
        raise ThresholdError(
            f"{model.name} was stored with a floor of {floor}: what lies below was not kept, so mistakes at "
            f"{to_probability(min(below, above)):g} cannot be told. Ask for {floor} or more."
        )
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


def _scores(batch: TagBatch, rows: Int64Array, tag_ids: Int16Array) -> Int16Array:
    """The scores of some (row, tag) of a batch, _NOT_STORED where there is none."""
    if not batch.tag_ids.size:
        return np.full(rows.size, _NOT_STORED, dtype=np.int16)
    stored = batch.rows << 16 | batch.tag_ids.astype(np.int64)
    order = np.argsort(stored)
    wanted = rows << 16 | tag_ids.astype(np.int64)
    at = order[np.minimum(np.searchsorted(stored, wanted, sorter=order), order.size - 1)]
    return np.where(stored[at] == wanted, batch.scores[at], np.int16(_NOT_STORED))
