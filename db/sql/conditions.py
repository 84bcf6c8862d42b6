"""Conditions on the scores of a row of `predictions`: one of several tags is in a range of scores.

    tags                 PostgreSQL                                      SQLite
    one                  tag = any(slice of tag_ids)                     a look-up in the clustered key
    few, one threshold   slice of tag_ids && tags                        a look-up per tag
    many, or thresholds  compare the scores of the slice with a table    the same with the scores of the image
    of their own         of thresholds by tag id
    few, indexed         the index finds images, the above checks them   the index finds the images

`db.search.execute` decides whether the index is used, since it has the whole query.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Dialect,
    Integer,
    SmallInteger,
    and_,
    bindparam,
    exists,
    func,
    literal,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import UserDefinedType

from db.arrays.types import Int16Array
from db.schema import SmallintArray, predictions, tag_scores
from db.scores import NEVER
from db.sql.score_sql import start_of_slice
from db.sql.tag_index_ddl import indexed_slice

FEW = 50
"""Maximum number of tags that are compared one by one. Above it the table is faster (measured on PostgreSQL)."""


def reaches(
    connection: Connection,
    model_id: int,
    tag_ids: Sequence[int],
    lows: Sequence[int],
    high: int = NEVER,
    *,
    indexed: int | None = None,
) -> ColumnElement[bool]:
    """The condition that one of the tags has low <= score < high.

    Args:
        tag_ids: at least one.
        lows: the lowest score of each tag, parallel to `tag_ids`.
        high: for all tags.
        indexed: the lowest score in the model's index by tag; None not to use the index.
    """
    on_dialect = _on_postgresql if connection.dialect.name == "postgresql" else _on_sqlite
    return on_dialect(model_id, tag_ids, lows, high, indexed)


def can_use_index(tag_ids: Sequence[int], lows: Sequence[int], indexed: int | None) -> bool:
    """Whether the index has all scores of a condition, and a look-up there is faster."""
    return indexed is not None and len(tag_ids) <= FEW and min(lows, default=NEVER) >= indexed


def _on_postgresql(
    model_id: int, tag_ids: Sequence[int], lows: Sequence[int], high: int, indexed: int | None
) -> ColumnElement[bool]:
    lowest, uniform = min(lows), len(set(lows)) == 1
    above = _Slice("tag_ids", lowest, high)
    wanted = np.array(tag_ids, dtype=np.int16)
    exact: ColumnElement[bool]
    if len(tag_ids) == 1:
        exact = literal(tag_ids[0], SmallInteger) == func.any(above)
    elif uniform and len(tag_ids) <= FEW:
        exact = _overlap(above, wanted)
    else:
        # unnest is in the select list, where it is faster: see `db.sql.score_sql`.
        rows = select(
            func.unnest(above, type_=SmallInteger).label("tag_id"),
            func.unnest(_Slice("scores", lowest, high), type_=SmallInteger).label("score"),
        ).subquery("above")
        exact = exists(select(1).select_from(rows).where(rows.c.score >= _LowOf(tag_ids, lows, rows.c.tag_id)))
    if indexed is None:
        return exact
    of_model = literal_column(f"predictions.model_id = {model_id}", Boolean)  # as in the definition of the index
    found = and_(of_model, _overlap(literal_column(indexed_slice(indexed)), wanted))
    is_all = uniform and lowest == indexed and high == NEVER
    return found if is_all else and_(found, exact)


def _on_sqlite(
    model_id: int, tag_ids: Sequence[int], lows: Sequence[int], high: int, indexed: int | None
) -> ColumnElement[bool]:
    k = tag_scores.alias("k")
    if indexed is not None:
        # Literal numbers: SQLite uses a partial index only if the query has the condition of the index.
        in_index = and_(
            k.c.model_id == literal_column(str(model_id), Integer), k.c.score >= literal_column(str(indexed), Integer)
        )
        # One subquery per tag: for a list of tags SQLite would scan all scores of the model.
        each = [
            select(k.c.image_id).where(in_index, k.c.tag_id == tag_id, k.c.score >= low, k.c.score < high)
            for tag_id, low in zip(tag_ids, lows, strict=True)
        ]
        return predictions.c.image_id.in_(union_all(*each))
    of_image = and_(k.c.model_id == predictions.c.model_id, k.c.image_id == predictions.c.image_id)
    wanted: ColumnElement[bool]
    if len(set(lows)) == 1 and len(tag_ids) <= FEW:
        wanted = k.c.tag_id.in_(tag_ids)
    else:
        wanted = and_(k.c.tag_id <= max(tag_ids), k.c.score >= _LowOf(tag_ids, lows, k.c.tag_id))
    in_range = and_(k.c.score >= min(lows), k.c.score < high)
    return exists(select(1).select_from(k).where(of_image, wanted, in_range).correlate(predictions))


class ScoreOf(FunctionElement[int]):
    """The score of a tag in a row of `predictions`; NULL if it is not stored."""

    name = "score_of"
    inherit_cache = True

    def __init__(self, tag_id: int) -> None:
        super().__init__(bindparam("sort_tag", tag_id, SmallInteger, unique=True))
        self.type = SmallInteger()


@compiles(ScoreOf, "postgresql")
def _score_of_postgresql(element: ScoreOf, compiler: SQLCompiler, **kw: Any) -> str:
    return f"predictions.scores[array_position(predictions.tag_ids, {compiler.process(element.clauses, **kw)})]"


_SCORE_SQLITE = (
    "select s.score from tag_scores s where s.model_id = predictions.model_id and s.image_id = predictions.image_id"
)


@compiles(ScoreOf, "sqlite")
def _score_of_sqlite(element: ScoreOf, compiler: SQLCompiler, **kw: Any) -> str:
    return f"({_SCORE_SQLITE} and s.tag_id = {compiler.process(element.clauses, **kw)})"


class _Slice(FunctionElement[Int16Array]):
    """PostgreSQL: the elements of `tag_ids` or `scores` of a row with low <= score < high."""

    name = "slice"
    inherit_cache = True

    def __init__(self, column: str, low: int, high: int) -> None:
        ends = [low] if high == NEVER else [low, high]
        super().__init__(
            literal_column(column), *(bindparam("slice_end", end, SmallInteger, unique=True) for end in ends)
        )
        self.type = SmallintArray()


@compiles(_Slice, "postgresql")
def _slice_postgresql(element: _Slice, compiler: SQLCompiler, **kw: Any) -> str:
    column, *ends = (compiler.process(clause, **kw) for clause in element.clauses)
    start, *after = (start_of_slice(end) for end in ends)
    return f"predictions.{column}[{start}:{f'{after[0]} - 1' if after else ''}]"


def _overlap(tag_ids: ColumnElement[Any], wanted: Int16Array) -> ColumnElement[bool]:
    return tag_ids.bool_op("&&")(literal(wanted, SmallintArray()))


class _Lows(UserDefinedType[Int16Array]):
    """The type of a table of thresholds: (highest tag id + 1,), NEVER for tags that are not in the condition."""

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        if dialect.name == "sqlite":
            return lambda lows: b"".join([b"%05d" % low for low in lows.tolist()])
        return lambda lows: lows


class _LowOf(FunctionElement[int]):
    """The threshold of a tag id. On SQLite the tag id must not exceed the highest one of the table."""

    name = "low_of"
    inherit_cache = True

    def __init__(self, tag_ids: Sequence[int], lows: Sequence[int], tag_id: ColumnElement[int]) -> None:
        super().__init__(bindparam("lows", _table(tag_ids, lows), _Lows(), unique=True), tag_id)
        self.type = SmallInteger()


@compiles(_LowOf, "postgresql")
def _low_of_postgresql(element: _LowOf, compiler: SQLCompiler, **kw: Any) -> str:
    lows, tag_id = (compiler.process(clause, **kw) for clause in element.clauses)
    # A tag id beyond the end of the table gives NULL, and no score is >= NULL.
    return f"({lows}::smallint[])[{tag_id} + 1]"


@compiles(_LowOf, "sqlite")
def _low_of_sqlite(element: _LowOf, compiler: SQLCompiler, **kw: Any) -> str:
    lows, tag_id = (compiler.process(clause, **kw) for clause in element.clauses)
    # Five digits per threshold, as bytes: substr reaches the n-th in constant time.
    return f"cast(substr({lows}, {tag_id} * 5 + 1, 5) as integer)"


def _table(tag_ids: Sequence[int], lows: Sequence[int]) -> Int16Array:
    table = np.full(max(tag_ids) + 1, NEVER, dtype=np.int16)
    table[list(tag_ids)] = lows
    return table
