"""Draw images uniformly at random, from all images or from those with a score of a tag in a range.

Rejection sampling: ids between the first and the last one are drawn and looked up, and ids that do not exist or do not
satisfy the condition are rejected. The rest is a random sample, and only the looked-up rows were read. If too few ids
would be accepted, all ids that satisfy the condition are read, which are then few, and drawn from.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Select, func, select, true

from db.arrays.types import Int64Array
from db.ledger.models import Model
from db.postings.tag_scores import scores_in_range
from db.sampling.near_threshold import ScoredImage, scored_images
from db.schema import predictions
from db.search.tree import Reaches
from db.sql.gone_scope import tagged
from db.sql.in_list import in_list
from db.sql.scores.conditions import reaches

_SHARE = 200
"""At most one image in this many is looked up before all are read: a fifth of the time that reading all takes."""
_FIRST = 200
_AT_ONCE = 10_000
"""Ids in one look-up. SQLite takes 32,766 parameters."""
_SMALL = 10_000
"""A range of fewer ids is read at once."""


def random_ids(connection: Connection, model: Model, n: int, seed: int) -> list[int]:
    """Ids of n images that the model has tagged, or of all if there are fewer, in random order."""
    return _draw(connection, model, n, seed, true())


def with_tag(
    connection: Connection, model: Model, tag_id: int, low: int, high: int, n: int, seed: int
) -> list[ScoredImage]:
    """Draw n images with low <= score < high of a tag, or all if there are fewer, in random order.

    Args:
        low: a score; raised to the model's floor.
        high: a score, or NEVER for no upper limit.
    """
    leaf = Reaches((tag_id,), (max(low, model.floor),), high)
    if leaf.lows[0] >= high:
        return []
    if (found := scores_in_range(connection, model, tag_id, leaf.lows[0], high)) is not None:
        ids = _choose(found.image_ids, n, np.random.default_rng(seed))
    else:
        ids = _draw(connection, model, n, seed, reaches(connection, model.id, leaf.tag_ids, leaf.lows, leaf.high))
    return scored_images(connection, model, tag_id, ids)


def _draw(connection: Connection, model: Model, n: int, seed: int, where: ColumnElement[bool]) -> list[int]:
    """Ids of n images that satisfy a condition."""
    query = select(predictions.c.image_id).where(tagged(connection, model.id))
    rng = np.random.default_rng(seed)
    first, last = _id_range(connection, model)
    span = last - first
    found: list[int] = []
    if span >= max(_SMALL, 2 * n):
        most = min(max(span // _SHARE, 10 * n), span // 2)
        asked = 0
        for ids in _distinct(rng, first, last, max(_FIRST, min(2 * n, _AT_ONCE))):
            present = set(connection.scalars(query.where(in_list(connection, predictions.c.image_id, ids), where)))
            found += [one for one in ids if one in present]
            asked += len(ids)
            if len(found) >= n:
                return found[:n]
            if asked >= most or len(found) * most < n * asked:
                break
    return _of_all(connection, query.where(where), n, rng)


def _id_range(connection: Connection, model: Model) -> tuple[int, int]:
    """The first and the last id; (0, -1) without images."""
    # Each alone is one look-up in the key; SQLite answers both together with a scan.
    limits = [
        select(of(predictions.c.image_id)).where(predictions.c.model_id == model.id).scalar_subquery()
        for of in (func.min, func.max)
    ]
    first, last = connection.execute(select(*limits)).one()
    return (0, -1) if first is None else (first, last)


def _distinct(rng: np.random.Generator, first: int, last: int, size: int) -> Iterator[list[int]]:
    """Yield lists of random ids without repetition, each longer than the one before."""
    seen: set[int] = set()
    while True:
        drawn = dict.fromkeys(rng.integers(first, last, size, endpoint=True).tolist())
        fresh = [one for one in drawn if one not in seen]
        seen.update(fresh)
        yield fresh
        size = min(4 * size, _AT_ONCE)


def _of_all(connection: Connection, query: Select[Any], n: int, rng: np.random.Generator) -> list[int]:
    # Sorted, so that a seed draws the same images whatever the order of the rows.
    return _choose(np.sort(np.fromiter(connection.scalars(query), dtype=np.int64)), n, rng)


def _choose(ids: Int64Array, n: int, rng: np.random.Generator) -> list[int]:
    return [int(one) for one in rng.choice(ids, min(n, ids.size), replace=False)]
