"""Some images with their scores, in memory, and which of them to look at."""

from collections.abc import Sequence

import numpy as np
from sqlalchemy import Connection

from db.batches import batched
from db.ledger.models import Model
from db.policy.policies import Cut
from db.read.tag_batches import IMAGES_AT_ONCE, Int64Array, TagBatch, read_tag_batches
from db.schema import predictions
from db.scores import NEVER
from db.sql.in_list import in_list
from db.truth.pairs import offsets_of, ranges

_EQUAL = 1e-12
"""Vectors of length 1 that differ by no more are the same, but for rounding."""
CLOSE = 500
"""A tag within 0.05 of its threshold is undecided."""


def load(connection: Connection, model: Model, ids: Sequence[int], lowest: int) -> TagBatch:
    """Some images with everything at or above a score, in the order of their ids as given.

    Args:
        ids: each once. Those that the model has not tagged are left out.
        lowest: a score. Cuts are to be applied only when they have no lower one.
    """
    # One threshold says it all, whatever the number of tags.
    cut = Cut(np.array([lowest], dtype=np.int16), model.floor)
    batches = [
        batch
        for some in batched(ids, IMAGES_AT_ONCE)
        for batch in read_tag_batches(connection, model, cut, where=in_list(connection, predictions.c.image_id, some))
    ]
    found = _joined(batches)
    places = {image_id: place for place, image_id in enumerate(found.image_ids)}
    return part_of(found, np.array([places[one] for one in ids if one in places], dtype=np.int64))


def part_of(pool: TagBatch, positions: Int64Array | Sequence[int]) -> TagBatch:
    """The images at some positions, in that order."""
    chosen = np.asarray(positions, dtype=np.int64)
    sizes = np.diff(pool.offsets)[chosen]
    tags = ranges(pool.offsets[chosen], sizes)
    places = chosen.tolist()
    return TagBatch(
        [pool.image_ids[place] for place in places],
        [pool.uris[place] for place in places],
        [pool.widths[place] for place in places],
        [pool.heights[place] for place in places],
        offsets_of(sizes),
        pool.tag_ids[tags],
        pool.scores[tags],
    )


def diverse(pool: TagBatch, n: int, seed: int, tags: int) -> list[int]:
    """Positions of n images that are spread over the space of scores.

    The seeding of k-means++ (Arthur, Vassilvitskii: "k-means++: the advantages of careful seeding", SODA 2007) on score
    vectors of length 1: the first image is drawn at random, each next one with a probability in proportion to the
    square of its distance from the nearest one that is chosen.

    Args:
        tags: how many the model has.
    """
    rng = np.random.default_rng(seed)
    rows, values = pool.rows, pool.scores.astype(np.float64)
    lengths = np.sqrt(np.bincount(rows, values**2, minlength=len(pool)))
    values /= np.maximum(lengths, 1)[rows]
    squares = (lengths > 0).astype(np.float64)
    distances = np.full(len(pool), np.inf)
    chosen: list[int] = []
    left = np.ones(len(pool), dtype=np.bool_)
    while len(chosen) < min(n, len(pool)):
        weights = np.where(left, distances, 0)
        # First of all, and where all that are left are the same as a chosen one: each equally likely.
        if not chosen or not weights.any():
            weights = left.astype(np.float64)
        place = int(rng.choice(len(pool), p=weights / weights.sum()))
        chosen.append(place)
        left[place] = False
        vector = np.zeros(tags)
        own = slice(pool.offsets[place], pool.offsets[place + 1])
        vector[pool.tag_ids[own]] = values[own]
        products = np.bincount(rows, values * vector[pool.tag_ids], minlength=len(pool))
        apart = squares + squares[place] - 2 * products
        np.minimum(distances, np.where(apart < _EQUAL, 0, apart), out=distances)
    return chosen


def undecided(pool: TagBatch, cut: Cut, n: int, tag_id: int | None = None) -> list[int]:
    """Positions of the n images with the most tags within 0.05 of their thresholds; equals by their nearest tag.

    Args:
        pool: with the scores down to 0.05 below the thresholds.
        tag_id: the one tag that counts, the nearest first; None for all. Tags that are off do not count, and images
            without a score of one that does are left out.
    """
    lines = cut.scores.astype(np.int64)
    counts = lines < NEVER
    if tag_id is not None:
        counts &= np.arange(lines.size) == tag_id
    rows, tag_ids, scores = pool.rows, pool.tag_ids, pool.scores
    if not counts.all():
        chosen = counts[tag_ids]
        rows, tag_ids, scores = rows[chosen], tag_ids[chosen], scores[chosen]
    distances = np.abs(scores - lines[tag_ids])
    nearest = np.full(len(pool), NEVER, dtype=np.int64)
    np.minimum.at(nearest, rows, distances)
    close = np.bincount(rows[distances <= CLOSE], minlength=len(pool))
    order = np.lexsort((nearest, -close))
    order = order[nearest[order] < NEVER]
    return [int(place) for place in order[:n]]


def _joined(batches: Sequence[TagBatch]) -> TagBatch:
    """One behind the other."""
    none = np.empty(0, dtype=np.int16)
    return TagBatch(
        [one for batch in batches for one in batch.image_ids],
        [one for batch in batches for one in batch.uris],
        [one for batch in batches for one in batch.widths],
        [one for batch in batches for one in batch.heights],
        offsets_of(np.concatenate([none.astype(np.int64), *(np.diff(batch.offsets) for batch in batches)])),
        np.concatenate([none, *(batch.tag_ids for batch in batches)]),
        np.concatenate([none, *(batch.scores for batch in batches)]),
    )
