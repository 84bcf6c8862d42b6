"""The images whose score of a tag is nearest to its threshold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, case, func, select

from db.ledger.models import Model
from db.postings.state import read_state
from db.postings.tag_scores import scores_in_range
from db.read.distribution import CELLS, STEP, Distribution
from db.read.histograms import histogram
from db.schema import images, predictions
from db.scores import NEVER
from db.search import execute
from db.search.tree import Reaches
from db.sql.gone_scope import tagged
from db.sql.in_list import in_list
from db.sql.scores.conditions import ScoreOf, reaches

_MANY = 4
"""A step is read on its own if it holds at least this many times the images asked for: a part of it is then enough."""


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """An image, and its score of the tag for which it was selected."""

    image_id: int
    uri: str
    score: int


def around(
    connection: Connection, model: Model, tag_id: int, score: int, n: int, distribution: Distribution | None = None
) -> tuple[list[ScoredImage], list[ScoredImage]]:
    """Find the n images whose scores of a tag are nearest to a threshold, on either side.

    If many images are within 0.001 of the threshold, n of them are taken by id: smaller differences are within the
    arithmetic error of a model.

    Args:
        score: the threshold, in ten-thousandths.
        distribution: gives the range of scores to read. None: the scores of the tag are counted first, which doubles
            the time.

    Returns:
        (above, below): the nearest first, equals by id. Images with the tag below the model's floor are in neither.
    """
    if (known := _from_postings(connection, model, tag_id, score, n)) is not None:
        return known
    bins = CELLS - 1
    counts = (
        distribution.histogram(tag_id, bins) if distribution else histogram(connection, model, tag_id, bins)
    ).counts
    if (found := _within_a_step(connection, model, tag_id, counts, score, n)) is not None:
        return found
    low, high = _range(counts, score, n)
    low = max(low, model.floor)
    above, below = _nearest(connection, model, Reaches((tag_id,), (low,), high), score, n)
    # The distribution may be older than the images.
    if (len(above) < n and high < NEVER) or (len(below) < n and low > model.floor):
        return _nearest(connection, model, Reaches((tag_id,), (model.floor,), NEVER), score, n)
    return above, below


def scored_images(connection: Connection, model: Model, tag_id: int, image_ids: Sequence[int]) -> list[ScoredImage]:
    """Load the uris and scores of some images, in the order of their ids as given."""
    query = (
        select(images.c.id, images.c.uri, ScoreOf(tag_id).label("score"))
        .join_from(predictions, images, images.c.id == predictions.c.image_id)
        .where(tagged(connection, model.id), in_list(connection, predictions.c.image_id, image_ids))
    )
    found = {row.id: ScoredImage(row.id, row.uri, row.score) for row in connection.execute(query)}
    return [found[one] for one in image_ids]


def _from_postings(
    connection: Connection, model: Model, tag_id: int, score: int, n: int
) -> tuple[list[ScoredImage], list[ScoredImage]] | None:
    """None if the postings do not have all of the images."""
    state = read_state(connection, model.id)
    lowest = max(state.floor, model.floor)
    if score < lowest or (found := scores_in_range(connection, model, tag_id, lowest, NEVER)) is None:
        return None
    order = np.lexsort((found.image_ids, np.abs(found.scores - score)))
    is_above = found.scores[order] >= score
    if lowest > model.floor and np.count_nonzero(~is_above) < n:
        return None
    sides = (found.image_ids[order[is_above]][:n], found.image_ids[order[~is_above]][:n])
    above, below = (scored_images(connection, model, tag_id, ids.tolist()) for ids in sides)
    return above, below


def _within_a_step(
    connection: Connection, model: Model, tag_id: int, counts: Sequence[int], score: int, n: int
) -> tuple[list[ScoredImage], list[ScoredImage]] | None:
    """Take the images from the step on either side alone; None if the steps hold too few for reading a part of them."""
    step = score // STEP
    if score % STEP or not 0 < step < len(counts) or min(counts[step - 1], counts[step]) < _MANY * n:
        return None
    sides = []
    for low in (score, score - STEP):
        query = (
            select(predictions.c.image_id)
            .where(tagged(connection, model.id), reaches(connection, model.id, (tag_id,), (low,), low + STEP))
            .order_by(predictions.c.image_id)
            .limit(n)
        )
        found = scored_images(connection, model, tag_id, list(connection.scalars(query)))
        if len(found) < n:
            return None
        sides.append(sorted(found, key=lambda one: (abs(one.score - score), one.image_id)))
    return sides[0], sides[1]


def _range(counts: Sequence[int], score: int, n: int) -> tuple[int, int]:
    """(low, high): the narrowest range of whole steps with n images on either side of a score."""
    of_steps = np.asarray(counts, dtype=np.int64)
    # The step that holds the threshold is in the range, but its images count on neither side.
    below, above = score // STEP, -(-score // STEP)
    down, up = np.cumsum(of_steps[:below][::-1]), np.cumsum(of_steps[above:])
    steps_up = int(np.searchsorted(up, n)) + 1
    high = NEVER if above + steps_up >= of_steps.size else (above + steps_up) * STEP
    return max(below - int(np.searchsorted(down, n)) - 1, 0) * STEP, high


def _nearest(
    connection: Connection, model: Model, leaf: Reaches, score: int, n: int
) -> tuple[list[ScoredImage], list[ScoredImage]]:
    """The n nearest images on either side, of those for which `leaf`, a condition on one tag, is true."""
    scored = (
        select(predictions.c.image_id, ScoreOf(leaf.tag_ids[0]).label("score"))
        .where(tagged(connection, model.id), execute.condition(connection, model, leaf))
        .subquery()
    )
    side = case((scored.c.score >= score, 1), else_=0)
    order = (func.abs(scored.c.score - score), scored.c.image_id)
    rank = func.row_number().over(partition_by=side, order_by=order)
    ranked = select(scored, rank.label("rank")).subquery()
    query = (
        select(images.c.id, images.c.uri, ranked.c.score)
        .join_from(ranked, images, images.c.id == ranked.c.image_id)
        .where(ranked.c.rank <= n)
        .order_by(ranked.c.rank)
    )
    found = [ScoredImage(*row) for row in connection.execute(query)]
    return [one for one in found if one.score >= score], [one for one in found if one.score < score]
