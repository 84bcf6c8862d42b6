"""A pool: some images with their scores in memory, and the selection of images from it."""

from collections.abc import Sequence

import numpy as np
from sqlalchemy import Connection

from db.arrays.batches import batched
from db.arrays.csr import offsets_of, ranges
from db.arrays.types import Int64Array
from db.ledger.models import Model
from db.policy.policies import Cut
from db.read.tag_batches import IMAGES_AT_ONCE, TagBatch, read_tag_batches
from db.schema import predictions
from db.scores import NEVER
from db.sql.in_list import in_list

_EQUAL = 1e-12
"""Squared distances of unit vectors that are rounding errors of 0."""
CLOSE = 500
"""A tag within 0.05 of its threshold is undecided."""


def load(connection: Connection, model: Model, ids: Sequence[int], lowest: int) -> TagBatch:
    """Load some images with all scores at or above `lowest`, in the order of `ids`.

    Args:
        ids: without repetition. Images that the model has not tagged are left out.
        lowest: a score. Only cuts whose lowest threshold is at or above it may be applied to the pool.
    """
    # A uniform cut needs one threshold, whatever the number of tags.
    cut = Cut(np.array([lowest], dtype=np.int16), model.floor)
    batches = [
        batch
        for some in batched(ids, IMAGES_AT_ONCE)
        for batch in read_tag_batches(connection, model, cut, where=in_list(connection, predictions.c.image_id, some))
    ]
    found = _joined(batches)
    positions = {image_id: position for position, image_id in enumerate(found.image_ids)}
    return part_of(found, np.array([positions[one] for one in ids if one in positions], dtype=np.int64))


def part_of(pool: TagBatch, positions: Int64Array | Sequence[int]) -> TagBatch:
    """The images at (images,) positions of the pool, in that order."""
    chosen = np.asarray(positions, dtype=np.int64)
    sizes = np.diff(pool.offsets)[chosen]
    tags = ranges(pool.offsets[chosen], sizes)
    indices = chosen.tolist()
    return TagBatch(
        [pool.image_ids[index] for index in indices],
        [pool.uris[index] for index in indices],
        [pool.widths[index] for index in indices],
        [pool.heights[index] for index in indices],
        offsets_of(sizes),
        pool.tag_ids[tags],
        pool.scores[tags],
    )


def diverse(pool: TagBatch, n: int, seed: int, tags: int) -> list[int]:
    """Positions of n images that are spread over the space of scores.

    The seeding of k-means++ (Arthur, Vassilvitskii: "k-means++: the advantages of careful seeding", SODA 2007) on score
    vectors normalised to length 1: the first image is drawn uniformly, each next one with a probability proportional to
    its squared distance from the nearest image already chosen.

    Args:
        tags: number of tags of the model.
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
        # Uniform for the first image, and if all remaining images equal a chosen one.
        if not chosen or not weights.any():
            weights = left.astype(np.float64)
        position = int(rng.choice(len(pool), p=weights / weights.sum()))
        chosen.append(position)
        left[position] = False
        vector = np.zeros(tags)
        own = slice(pool.offsets[position], pool.offsets[position + 1])
        vector[pool.tag_ids[own]] = values[own]
        products = np.bincount(rows, values * vector[pool.tag_ids], minlength=len(pool))
        apart = squares + squares[position] - 2 * products
        np.minimum(distances, np.where(apart < _EQUAL, 0, apart), out=distances)
    return chosen


def undecided(pool: TagBatch, cut: Cut, n: int, tag_id: int | None = None) -> list[int]:
    """Positions of the n images with the most tags within 0.05 of their thresholds; equals by their nearest tag.

    Images without a score of a tag that counts are left out. Tags that are off do not count.

    Args:
        pool: images with all scores down to 0.05 below the thresholds.
        tag_id: the only tag that counts; images are then in the order of their distance. None: all tags count.
    """
    thresholds = cut.scores.astype(np.int64)
    counts = thresholds < NEVER
    if tag_id is not None:
        counts &= np.arange(thresholds.size) == tag_id
    rows, tag_ids, scores = pool.rows, pool.tag_ids, pool.scores
    if not counts.all():
        chosen = counts[tag_ids]
        rows, tag_ids, scores = rows[chosen], tag_ids[chosen], scores[chosen]
    distances = np.abs(scores - thresholds[tag_ids])
    nearest = np.full(len(pool), NEVER, dtype=np.int64)
    np.minimum.at(nearest, rows, distances)
    close = np.bincount(rows[distances <= CLOSE], minlength=len(pool))
    order = np.lexsort((nearest, -close))
    order = order[nearest[order] < NEVER]
    return [int(position) for position in order[:n]]


def _joined(batches: Sequence[TagBatch]) -> TagBatch:
    """Concatenate batches."""
    none = np.empty(0, dtype=np.int32)
    return TagBatch(
        [one for batch in batches for one in batch.image_ids],
        [one for batch in batches for one in batch.uris],
        [one for batch in batches for one in batch.widths],
        [one for batch in batches for one in batch.heights],
        offsets_of(np.concatenate([none.astype(np.int64), *(np.diff(batch.offsets) for batch in batches)])),
        np.concatenate([none, *(batch.tag_ids for batch in batches)]),
        np.concatenate([none.astype(np.int16), *(batch.scores for batch in batches)]),
    )
