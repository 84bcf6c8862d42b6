"""Conditions on the scores of a row of `predictions`: one of some tags is in a range of scores.

    how many tags        PostgreSQL                                      SQLite
    one                  tag = any(slice of tag_ids)                     a look-up in the clustered key
    few, one threshold   slice of tag_ids && tags                        a look-up each
    many, or thresholds  the scores of the slice against a table of      the scores of the image, the same
    of their own         thresholds by tag id
    up to few, indexed   the index finds images, the above checks them   the index finds the images

`db.search.execute` decides whether the index is used, since it sees the whole query.
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

from db.schema import Int16Array, SmallintArray, predictions, tag_scores
from db.scores import NEVER
from db.sql.score_sql import start_of_slice
from db.sql.tag_index_ddl import indexed_slice

FEW = 50
"""Up to so many tags are compared one by one (PostgreSQL: measured, from there on the table is faster)."""


def reaches(
    connection: Connection,
    model_id: int,
    tag_ids: Sequence[int],
    lows: Sequence[int],
    high: int = NEVER,
    *,
    indexed: int | None = None,
) -> ColumnElement[bool]:
    """One of the tags has low <= score < high.

    Args:
        tag_ids: at least one.
        lows: scores in step with `tag_ids`.
        indexed: the score from which on the model's index by tag is to be used; None to leave the index alone.
    """
    on_dialect = _on_postgresql if connection.dialect.name == "postgresql" else _on_sqlite
    return on_dialect(model_id, tag_ids, lows, high, indexed)


def can_use_index(tag_ids: Sequence[int], lows: Sequence[int], indexed: int | None) -> bool:
    """The index holds all scores that are asked for, and looking them up there is faster."""
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
        # In the select list: see db.sql.score_sql.
        rows = select(
            func.unnest(above, type_=SmallInteger).label("tag_id"),
            func.unnest(_Slice("scores", lowest, high), type_=SmallInteger).label("score"),
        ).subquery("above")
        exact = exists(select(1).select_from(rows).where(rows.c.score >= _LowOf(tag_ids, lows, rows.c.tag_id)))
    if indexed is None:
        return exact
    of_model = literal_column(f"predictions.model_id = {model_id}", Boolean)  # what the index says of its model
    found = and_(of_model, _overlap(literal_column(indexed_slice(indexed)), wanted))
    is_all = uniform and lowest == indexed and high == NEVER
    return found if is_all else and_(found, exact)


def _on_sqlite(
    model_id: int, tag_ids: Sequence[int], lows: Sequence[int], high: int, indexed: int | None
) -> ColumnElement[bool]:
    k = tag_scores.alias("k")
    if indexed is not None:
        # Numbers in the text: a partial index is used where the condition says the same as the index does.
        in_index = and_(
            k.c.model_id == literal_column(str(model_id), Integer), k.c.score >= literal_column(str(indexed), Integer)
        )
        # A tag at a time: for a list of tags SQLite would rather walk through all scores of the model.
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
    """The score of a tag in a row of `predictions`; NULL where it is not stored."""

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
    """PostgreSQL: `tag_ids` or `scores` of a row, where low <= score < high."""

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
    """A threshold for each tag id from 0 on, NEVER for those not asked for."""

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        if dialect.name == "sqlite":
            return lambda lows: b"".join([b"%05d" % low for low in lows.tolist()])
        return lambda lows: lows


class _LowOf(FunctionElement[int]):
    """The threshold of a tag id, which is at most the highest one of the leaf on SQLite."""

    name = "low_of"
    inherit_cache = True

    def __init__(self, tag_ids: Sequence[int], lows: Sequence[int], tag_id: ColumnElement[int]) -> None:
        super().__init__(bindparam("lows", _table(tag_ids, lows), _Lows(), unique=True), tag_id)
        self.type = SmallInteger()


@compiles(_LowOf, "postgresql")
def _low_of_postgresql(element: _LowOf, compiler: SQLCompiler, **kw: Any) -> str:
    lows, tag_id = (compiler.process(clause, **kw) for clause in element.clauses)
    # A tag id behind its end gives NULL, and no score reaches that.
    return f"({lows}::smallint[])[{tag_id} + 1]"


@compiles(_LowOf, "sqlite")
def _low_of_sqlite(element: _LowOf, compiler: SQLCompiler, **kw: Any) -> str:
    lows, tag_id = (compiler.process(clause, **kw) for clause in element.clauses)
    # Five digits each, in bytes, of which substr finds the n-th at once.
    return f"cast(substr({lows}, {tag_id} * 5 + 1, 5) as integer)"


def _table(tag_ids: Sequence[int], lows: Sequence[int]) -> Int16Array:
    table = np.full(max(tag_ids) + 1, NEVER, dtype=np.int16)
    table[list(tag_ids)] = lows
    return table
