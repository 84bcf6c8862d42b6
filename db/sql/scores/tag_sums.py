"""Sums over the scores of all images: SQL groups the arrays of PostgreSQL, numpy the blobs of SQLite."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Connection, Integer, SmallInteger, bindparam, func, literal_column, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from db.arrays.types import Int16Array, Int32Array, Int64Array
from db.schema import predictions
from db.scores import NEVER
from db.sql.gone_scope import tagged
from db.sql.scores.conditions import FEW, LowOf, ScoreOf, one_beats
from db.sql.scores.packed import packed, unpack
from db.sql.scores.score_sql import start_of_slice
from db.sql.scores.tag_id_width import tag_ids_column
from db.sql.streams import stream_rows

_IMAGES_AT_ONCE = 2_000


class TagSums(NamedTuple):
    """The images that keep each tag."""

    images: Int64Array
    """(tags,) their number."""
    scores: npt.NDArray[np.float64]
    """(tags,) the sum of their scores, in ten-thousandths."""


class _SliceOf(FunctionElement[Any]):
    """PostgreSQL: the elements of a column of arrays at or above a score, one row each."""

    inherit_cache = True

    def __init__(self, column: str, score: int) -> None:
        self.name = f"slice_of_{column}"
        super().__init__(literal_column(column), bindparam("slice_score", score, SmallInteger, unique=True))
        self.type = Integer()


@compiles(_SliceOf, "postgresql")
def _slice_postgresql(element: _SliceOf, compiler: SQLCompiler, **kw: Any) -> str:
    column, score = (compiler.process(clause, **kw) for clause in element.clauses)
    # In the select list, unnest ran 1.7 to 4 times faster than in a lateral FROM.
    return f"unnest(predictions.{column}[{start_of_slice(score)}:])"


def tag_sums(connection: Connection, model_id: int, lows: Int16Array, where: ColumnElement[bool]) -> TagSums:
    """The sums of some images.

    Args:
        lows: (tags,) the lowest score of each tag that counts.
        where: the condition on `predictions` that selects the model and the images.
    """
    images, sums = np.zeros(lows.size, dtype=np.int64), np.zeros(lows.size)
    lowest = int(lows.min(initial=NEVER))
    uniform = bool((lows == lowest).all())
    if connection.dialect.name == "postgresql":
        ids = tag_ids_column(connection, model_id)
        columns = (_SliceOf(ids, lowest).label("tag_id"), _SliceOf("scores", lowest).label("score"))
        rows = select(*columns).select_from(predictions).where(where).subquery()
        grouped = select(rows.c.tag_id, func.count(), func.sum(rows.c.score)).group_by(rows.c.tag_id)
        if not uniform:
            # Two workers and the leader filter and group. Arrays that are copied to numpy cost the server as much.
            grouped = grouped.where(rows.c.score >= LowOf(lows, rows.c.tag_id))
        for tag_id, number, total in connection.execute(grouped):
            images[tag_id], sums[tag_id] = number, total
        return TagSums(images, sums)
    query = select(*packed(connection, lowest)).select_from(predictions).where(where)
    for batch in stream_rows(connection, query, _IMAGES_AT_ONCE):
        _counts, tag_ids, scores = unpack(connection, batch, lowest)
        if not uniform:
            kept = scores >= lows[tag_ids]
            tag_ids, scores = tag_ids[kept], scores[kept]
        images += np.bincount(tag_ids, minlength=lows.size)
        sums += np.bincount(tag_ids, weights=scores, minlength=lows.size)
    return TagSums(images, sums)


def can_sum_best(connection: Connection, groups: Int32Array) -> bool:
    """Whether `sums_of_best` is faster than a pass over all rows: on PostgreSQL, for groups of few tags.

    Args:
        groups: (tags,) the number of each tag's exclusive group, -1 outside of them.
    """
    sizes = np.bincount(groups[groups >= 0])
    return connection.dialect.name == "postgresql" and bool((sizes**2 <= FEW).all())


def sums_of_best(connection: Connection, model_id: int, group: Sequence[int], lows: Int16Array) -> TagSums:
    """The sums of the tags of an exclusive group, parallel to `group`. Each image has the best one. PostgreSQL.

    Args:
        lows: (tags,) the lowest score of each tag of the model that counts.
    """
    # Materialised: each score is looked up once, and not once for each comparison.
    rows = (
        select(*(ScoreOf(tag_id).label(f"score_{tag_id}") for tag_id in group))
        .where(tagged(connection, model_id))
        .select_from(predictions)
        .cte("group_scores")
        .prefix_with("materialized")
    )
    scores = {tag_id: rows.c[f"score_{tag_id}"] for tag_id in group}
    bounds = {tag_id: int(lows[tag_id]) for tag_id in group}
    columns = []
    for tag_id, score in scores.items():
        is_best = one_beats(scores, [tag_id], [rival for rival in group if rival != tag_id], bounds)
        columns += [func.count().filter(is_best), func.coalesce(func.sum(score).filter(is_best), 0)]
    found = connection.execute(select(*columns).select_from(rows)).one()
    return TagSums(np.array(found[::2], dtype=np.int64), np.array(found[1::2], dtype=np.float64))
