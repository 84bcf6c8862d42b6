"""Images drawn at random, each of those that are asked for equally likely.

Ids between the first and the last one are drawn and looked up, and those that are not there, or are not asked for, are
left out: what is left is a random sample, and nothing but the looked-up rows was read (rejection sampling). Where too
few of the ids would be found, all that are asked for are read, which are not many then, and drawn from.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Select, func, select, true

from db.ledger.models import Model
from db.sampling.near_threshold import Near, told
from db.schema import predictions
from db.search import execute
from db.search.tree import Reaches
from db.sql.conditions import reaches
from db.sql.gone_scope import tagged
from db.sql.in_list import in_list

_SHARE = 200
"""One image in so many is looked up before all are read: a fifth of the time that reading them takes."""
_FIRST = 200
_AT_ONCE = 10_000
"""SQLite takes 32,766 parameters."""
_SMALL = 10_000
"""Of so few ids none is looked up."""


def random_ids(connection: Connection, model: Model, n: int, seed: int) -> list[int]:
    """Ids of n images that the model has tagged, in random order; of all of them where there are no more."""
    return _draw(connection, model, n, seed, true(), true())


def with_tag(connection: Connection, model: Model, tag_id: int, low: int, high: int, n: int, seed: int) -> list[Near]:
    """Images with low <= score < high of a tag, n of them or as many as there are, in random order.

    Args:
        high: a score, or NEVER for no end. Below the model's floor there is no score.
    """
    leaf = Reaches((tag_id,), (max(low, model.floor),), high)
    if leaf.lows[0] >= high:
        return []
    # An index finds all images with the tag, which is too much for a few looked up.
    exact = reaches(connection, model.id, leaf.tag_ids, leaf.lows, leaf.high)
    return told(
        connection, model, tag_id, _draw(connection, model, n, seed, exact, execute.condition(connection, model, leaf))
    )


def _draw(
    connection: Connection,
    model: Model,
    n: int,
    seed: int,
    where: ColumnElement[bool],
    where_of_all: ColumnElement[bool],
) -> list[int]:
    """Ids of n images for which a condition holds.

    Args:
        where_of_all: the same condition, as it is best asked of all images.
    """
    query = select(predictions.c.image_id).where(tagged(connection, model.id))
    rng = np.random.default_rng(seed)
    first, last = _ends(connection, model)
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
    return _of_all(connection, query.where(where_of_all), n, rng)


def _ends(connection: Connection, model: Model) -> tuple[int, int]:
    """The first and the last id; (0, -1) without any."""
    # Each alone is one look-up in the key; both together SQLite answers with a scan.
    ends = [
        select(of(predictions.c.image_id)).where(predictions.c.model_id == model.id).scalar_subquery()
        for of in (func.min, func.max)
    ]
    first, last = connection.execute(select(*ends)).one()
    return (0, -1) if first is None else (first, last)


def _distinct(rng: np.random.Generator, first: int, last: int, size: int) -> Iterator[list[int]]:
    """Random ids, none twice, more at a time from list to list."""
    seen: set[int] = set()
    while True:
        drawn = dict.fromkeys(rng.integers(first, last, size, endpoint=True).tolist())
        fresh = [one for one in drawn if one not in seen]
        seen.update(fresh)
        yield fresh
        size = min(4 * size, _AT_ONCE)


def _of_all(connection: Connection, query: Select[Any], n: int, rng: np.random.Generator) -> list[int]:
    # In whatever order the database gives them, the same seed draws the same ones.
    ids = np.sort(np.fromiter(connection.scalars(query), dtype=np.int64))
    return [int(one) for one in rng.choice(ids, min(n, ids.size), replace=False)]
