"""Conditions on the scores of a row of `predictions`: one of several tags is in a range of scores.

    tags                 PostgreSQL                                      SQLite
    one                  tag = any(slice of tag_ids)                     instr finds the tag in its blob; its score is
                                                                         the same part of the other blob
    few, one threshold   slice of tag_ids && tags                        the same for each tag
    many, or thresholds  compare the scores of the slice with a table    a function of ours does the same; few tags
    of their own         of thresholds by tag id                         with thresholds of their own as above

`db.search.conditions` combines them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    SmallInteger,
    Subquery,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from db.arrays.types import Int16Array, Int32Array
from db.schema import IntegerArray, SmallintArray, predictions
from db.scores import NEVER
from db.sql.formats.blob_format import NARROW, encode_one
from db.sql.scores.score_sql import start_of_slice
from db.sql.scores.tag_id_width import tag_id_width, tag_ids_column

NO_TAG = -1
"""No tag has this id."""
FEW = 50
"""Maximum number of tags that are compared one by one. Above it the table is faster (measured on PostgreSQL)."""


def reaches(
    connection: Connection,
    model_id: int,
    tag_ids: Sequence[int],
    lows: Sequence[int],
    high: int = NEVER,
) -> ColumnElement[bool]:
    """The condition that one of the tags has low <= score < high.

    Args:
        tag_ids: at least one.
        lows: the lowest score of each tag, parallel to `tag_ids`.
        high: for all tags.
    """
    if connection.dialect.name == "postgresql":
        return _on_postgresql(tag_ids_column(connection, model_id), tag_ids, lows, high)
    return _on_sqlite(connection, model_id, tag_ids, lows, high)


def best_is(
    connection: Connection, model_id: int, tag_ids: Sequence[int], group: Sequence[int], lows: Sequence[int]
) -> ColumnElement[bool]:
    """The condition that of a group of tags the best one is one of some tags.

    It is the most probable tag of the group that reaches its lowest score; of equally probable ones the first.

    Args:
        group: at least one.
        lows: the lowest score of each tag of the group, parallel to it.
    """
    rivals = [tag_id for tag_id in group if tag_id not in tag_ids]
    if len(tag_ids) * len(rivals) <= FEW:
        score_of, bound = _scores(connection, model_id)
        scores = {tag_id: score_of(tag_id) for tag_id in group}
        return one_beats(scores, tag_ids, rivals, dict(zip(group, map(bound, lows), strict=True)))
    table = _table(group, lows)
    if connection.dialect.name == "postgresql":
        above = _above(tag_ids_column(connection, model_id), min(lows))
        reached = select(above.c.tag_id).where(above.c.score >= LowOf(table, above.c.tag_id))
        best: ColumnElement[Any] = reached.order_by(above.c.score.desc(), above.c.tag_id).limit(1).scalar_subquery()
    else:
        best = func.tagonce_best(predictions.c.tag_ids, predictions.c.scores, table.tobytes(), type_=Integer)
    return func.coalesce(best, NO_TAG).in_(tag_ids)


def one_beats(
    scores: Mapping[int, ColumnElement[Any]], tag_ids: Sequence[int], rivals: Sequence[int], bounds: Mapping[int, Any]
) -> ColumnElement[bool]:
    """The condition that one of the tags reaches its lowest score, and no rival that reaches its own is better.

    Args:
        scores: by tag id; NULL if a score is not stored.
        bounds: the lowest scores by tag id, to compare with the scores.
    """
    # A comparison with NULL is not false, and its negation is not true.
    reached = {tag_id: and_(score.is_not(None), score >= bounds[tag_id]) for tag_id, score in scores.items()}

    def is_better(rival: int, tag_id: int) -> ColumnElement[bool]:
        first, second = scores[rival], scores[tag_id]
        return and_(reached[rival], first >= second if rival < tag_id else first > second)

    return or_(*(and_(reached[one], *(not_(is_better(rival, one)) for rival in rivals)) for one in tag_ids))


def _scores(connection: Connection, model_id: int) -> tuple[Callable[[int], ColumnElement[Any]], Callable[[int], Any]]:
    """Two functions: the score of a tag in a row of `predictions`, NULL if it is not stored; and a bound of scores."""
    if connection.dialect.name == "postgresql":
        return ScoreOf, int
    width = tag_id_width(connection, model_id)

    def score_of(tag_id: int) -> ColumnElement[Any]:
        at, score = _found(tag_id, width)
        return case((at > 0, score))

    return score_of, lambda low: literal(encode_one(low, NARROW), LargeBinary)


def _on_postgresql(column: str, tag_ids: Sequence[int], lows: Sequence[int], high: int) -> ColumnElement[bool]:
    lowest, uniform = min(lows), len(set(lows)) == 1
    above = _Slice(column, lowest, high)
    is_narrow = column == "tag_ids"
    wanted: Int16Array | Int32Array = np.array(tag_ids, np.int16) if is_narrow else np.array(tag_ids, np.int32)
    type_of_ids = SmallInteger if is_narrow else Integer
    if len(tag_ids) == 1:
        return literal(tag_ids[0], type_of_ids) == func.any(above)
    if uniform and len(tag_ids) <= FEW:
        return _overlap(above, wanted)
    rows = _above(column, lowest, high)
    return exists(select(1).select_from(rows).where(rows.c.score >= LowOf(_table(tag_ids, lows), rows.c.tag_id)))


def _above(column: str, low: int, high: int = NEVER) -> Subquery:
    """PostgreSQL: the tag ids and scores of a row with low <= score < high, one row each."""
    # unnest is in the select list, where it is faster: see `db.sql.scores.score_sql`.
    return select(
        func.unnest(_Slice(column, low, high), type_=SmallInteger if column == "tag_ids" else Integer).label("tag_id"),
        func.unnest(_Slice("scores", low, high), type_=SmallInteger).label("score"),
    ).subquery("above")


def _on_sqlite(
    connection: Connection, model_id: int, tag_ids: Sequence[int], lows: Sequence[int], high: int
) -> ColumnElement[bool]:
    if len(tag_ids) > FEW:
        packed = (predictions.c.tag_ids, predictions.c.scores)
        return func.tagonce_any_reaches(*packed, _table(tag_ids, lows).tobytes(), high, type_=Boolean)
    width = tag_id_width(connection, model_id)
    each = [_one_reaches(tag_id, low, high, width) for tag_id, low in zip(tag_ids, lows, strict=True)]
    return or_(*each)


def _one_reaches(tag_id: int, low: int, high: int, width: int) -> ColumnElement[bool]:
    at, score = _found(tag_id, width)
    found = and_(at > 0, score >= encode_one(low, NARROW))
    return found if high == NEVER else and_(found, score < encode_one(high, NARROW))


def _found(tag_id: int, width: int) -> tuple[ColumnElement[int], ColumnElement[bytes]]:
    """SQLite: the position of a tag in its blob, 0 if it is not stored, and its score, which then is no score."""
    at = func.instr(predictions.c.tag_ids, encode_one(tag_id, width), type_=Integer)
    # Numbers of two bytes each begin at 1, 3, 5, ...; of three at 1, 4, 7, ...
    start = at if width == NARROW else (at - 1) / width * NARROW + 1
    return at, func.substr(predictions.c.scores, start, NARROW, type_=LargeBinary)


class ScoreOf(FunctionElement[int]):
    """The score of a tag in a row of `predictions`; NULL if it is not stored."""

    name = "score_of"
    inherit_cache = True

    def __init__(self, tag_id: int) -> None:
        super().__init__(bindparam("sort_tag", tag_id, Integer, unique=True))
        self.type = SmallInteger()


@compiles(ScoreOf, "postgresql")
def _score_of_postgresql(element: ScoreOf, compiler: SQLCompiler, **kw: Any) -> str:
    tag_id = compiler.process(element.clauses, **kw)
    # One of the two columns is null. An id that is no smallint is not in the first one, and its cast would fail.
    small = f"(case when {tag_id}::integer <= 32767 then {tag_id}::integer end)::smallint"
    narrow = f"array_position(predictions.tag_ids, {small})"
    return f"predictions.scores[coalesce({narrow}, array_position(predictions.wide_tag_ids, {tag_id}::integer))]"


@compiles(ScoreOf, "sqlite")
def _score_of_sqlite(element: ScoreOf, compiler: SQLCompiler, **kw: Any) -> str:
    return f"tagonce_score(predictions.tag_ids, predictions.scores, {compiler.process(element.clauses, **kw)})"


class _Slice(FunctionElement[Int16Array]):
    """PostgreSQL: the elements of a column of arrays of a row with low <= score < high."""

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


def _overlap(tag_ids: ColumnElement[Any], wanted: Int16Array | Int32Array) -> ColumnElement[bool]:
    wanted_type = SmallintArray() if wanted.dtype == np.int16 else IntegerArray()
    return tag_ids.bool_op("&&")(literal(wanted, wanted_type))


class LowOf(FunctionElement[int]):
    """PostgreSQL: the threshold of a tag id.

    Args:
        lows: (tags,) the thresholds of all tag ids.
    """

    name = "low_of"
    inherit_cache = True

    def __init__(self, lows: Int16Array, tag_id: ColumnElement[int]) -> None:
        super().__init__(bindparam("lows", lows, SmallintArray(), unique=True), tag_id)
        self.type = SmallInteger()


@compiles(LowOf, "postgresql")
def _low_of_postgresql(element: LowOf, compiler: SQLCompiler, **kw: Any) -> str:
    lows, tag_id = (compiler.process(clause, **kw) for clause in element.clauses)
    # A tag id beyond the end of the table gives NULL, and no score is >= NULL.
    return f"({lows}::smallint[])[{tag_id} + 1]"


def _table(tag_ids: Sequence[int], lows: Sequence[int]) -> Int16Array:
    table = np.full(max(tag_ids) + 1, NEVER, dtype=np.int16)
    table[list(tag_ids)] = lows
    return table
