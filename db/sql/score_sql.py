"""One threshold over stored scores. Says what is wanted; how each dialect does it stands in the compilers below.

PostgreSQL: scores ascend within a row, so `width_bucket` is a binary search in C, and what reaches a score is a slice
of the end of the row. SQLite: one range of the clustered key an image. Policies that are more than one threshold start
from the slice above their lowest one (`db.read.tag_batches`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Dialect,
    Float,
    Integer,
    Select,
    SmallInteger,
    and_,
    bindparam,
    func,
    literal_column,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import UserDefinedType

from db.ledger.gone import in_scope, tagged
from db.ledger.models import Model
from db.schema import Int16Array, images, predictions, tag_scores, tags
from db.sql.array_format import split_pairs

_SCORE_BITS = 16
"""SQLite hands a tag over as one integer, score << 16 | tag id."""


def start_of_slice(score: str) -> str:
    """PostgreSQL: where in a row of `predictions` the scores at or above a score begin, 1-based."""
    # Scores are whole numbers: "at least s" is "above s - 1", which is what a bucket search answers.
    return f"width_bucket(({score} - 1)::smallint, predictions.scores) + 1"


class _PackedType(UserDefinedType[bytes | str | None]):
    """Whatever the dialect hands over; `unpack` reads it, many rows in one go."""

    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:  # noqa: ARG002
        return None


class Packed(FunctionElement[bytes | str | None]):
    """The tags of a row of `predictions` that are at or above a score, packed for `unpack`. For select lists."""

    name = "packed"
    inherit_cache = True

    def __init__(self, score: int) -> None:
        super().__init__(bindparam("packed_score", score, SmallInteger, unique=True))
        self.type = _PackedType()


@compiles(Packed, "postgresql")
def _packed_postgresql(element: Packed, compiler: SQLCompiler, **kw: Any) -> str:
    start = start_of_slice(compiler.process(element.clauses, **kw))
    return f"array_send(predictions.tag_ids[{start}:]) || array_send(predictions.scores[{start}:])"


_PACKED_SQLITE = (
    f"select group_concat((k.score << {_SCORE_BITS}) | k.tag_id) from tag_scores k "  # noqa: S608 - a constant
    "where k.model_id = predictions.model_id and k.image_id = predictions.image_id"
)


@compiles(Packed, "sqlite")
def _packed_sqlite(element: Packed, compiler: SQLCompiler, **kw: Any) -> str:
    return f"({_PACKED_SQLITE} and k.score >= {compiler.process(element.clauses, **kw)})"


def unpack(dialect: str, packed: Sequence[Any]) -> tuple[npt.NDArray[np.int64], Int16Array, Int16Array]:
    """Column `Packed` of many rows: (tags of each row, tag ids of all rows, their scores). In no order within a row."""
    if dialect == "postgresql":
        return split_pairs(packed)
    counts = np.array([text.count(",") + 1 if text else 0 for text in packed], dtype=np.int64)
    joined = ",".join(text for text in packed if text)
    numbers = np.array(joined.split(","), dtype=np.int64) if joined else np.empty(0, dtype=np.int64)
    tag_ids = (numbers & ((1 << _SCORE_BITS) - 1)).astype(np.int16)
    return counts, tag_ids, (numbers >> _SCORE_BITS).astype(np.int16)


class _Reaching(FunctionElement[int]):
    """How many tags of a row of `predictions` are at or above a score."""

    name = "reaching"
    inherit_cache = True

    def __init__(self, score: int) -> None:
        super().__init__(bindparam("reaching_score", score, SmallInteger, unique=True))
        self.type = Integer()


@compiles(_Reaching, "postgresql")
def _reaching_postgresql(element: _Reaching, compiler: SQLCompiler, **kw: Any) -> str:
    return f"cardinality(predictions.scores) + 1 - ({start_of_slice(compiler.process(element.clauses, **kw))})"


_REACHING_SQLITE = (
    "select count(*) from tag_scores k where k.model_id = predictions.model_id and k.image_id = predictions.image_id"
)


@compiles(_Reaching, "sqlite")
def _reaching_sqlite(element: _Reaching, compiler: SQLCompiler, **kw: Any) -> str:
    return f"({_REACHING_SQLITE} and k.score >= {compiler.process(element.clauses, **kw)})"


def count_at(model: Model, score: int) -> Select[Any]:
    """What one threshold keeps of everything: (images, images that keep a tag, tags of all of them)."""
    per_image = select(_Reaching(score).label("n")).where(predictions.c.model_id == model.id).subquery()
    columns: list[ColumnElement[Any]] = [
        func.count().label("images"),
        func.count().filter(per_image.c.n > 0).label("tagged"),
        func.coalesce(func.sum(per_image.c.n), 0).cast(BigInteger).label("tags"),
    ]
    return select(*columns).select_from(per_image)


class _SliceOf(FunctionElement[Any]):
    """PostgreSQL: a row a tag at or above a score; `tag_ids` or `scores`."""

    inherit_cache = True

    def __init__(self, column: str, score: int) -> None:
        self.name = f"slice_of_{column}"
        super().__init__(literal_column(column), bindparam("slice_score", score, SmallInteger, unique=True))
        self.type = SmallInteger()


@compiles(_SliceOf, "postgresql")
def _slice_postgresql(element: _SliceOf, compiler: SQLCompiler, **kw: Any) -> str:
    column, score = (compiler.process(clause, **kw) for clause in element.clauses)
    # In the select list, unnest ran 1.7 to 4 times faster than in a lateral FROM.
    return f"unnest(predictions.{column}[{start_of_slice(score)}:])"


def tag_counts_at(connection: Connection, model: Model, score: int) -> Select[Any]:
    """How often each tag is kept at a score: (tag, category, images, mean probability), most frequent first."""
    if connection.dialect.name == "postgresql":
        kept = select(_SliceOf("tag_ids", score).label("tag_id"), _SliceOf("scores", score).label("score")).where(
            tagged(connection, model)
        )
    else:
        kept = select(tag_scores.c.tag_id, tag_scores.c.score).where(
            tag_scores.c.model_id == model.id,
            tag_scores.c.score >= score,
            in_scope(connection, tag_scores.c.image_id),
        )
    rows = kept.subquery()
    # Counted by number first: joining names to every score would cost more than all the rest.
    counted = (
        select(rows.c.tag_id, func.count().label("images"), func.avg(rows.c.score).label("mean"))
        .group_by(rows.c.tag_id)
        .subquery()
    )
    return (
        select(
            tags.c.name.label("tag"),
            tags.c.category,
            counted.c.images,
            (counted.c.mean / 10_000.0).cast(Float).label("mean_probability"),
        )
        .select_from(counted.join(tags, and_(tags.c.tag_id == counted.c.tag_id, tags.c.model_id == model.id)))
        .order_by(counted.c.images.desc(), tags.c.tag_id)
    )


def begins_with(prefix: str) -> ColumnElement[bool]:
    """Images whose uri begins with a text, to the letter."""
    # A range, so that the index on uri serves it; LIKE would need its wildcards escaped and no locale in the way.
    # Two comparisons, since PostgreSQL's BETWEEN takes no collation at its bounds.
    return and_(images.c.uri >= prefix, images.c.uri <= prefix + "\U0010ffff")
