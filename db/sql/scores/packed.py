"""The tags of an image at or above a score in a select list, and their decoding for many rows at once."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Dialect, SmallInteger, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import UserDefinedType

from db.arrays.types import Int16Array, Int32Array, Int64Array
from db.schema import predictions
from db.sql.formats import array_format, blob_format
from db.sql.scores.score_sql import start_of_slice


class _PackedType(UserDefinedType[bytes]):
    """PostgreSQL's form of a packed row. `unpack` decodes many rows at once."""

    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:  # noqa: ARG002
        return None


class _Slices(FunctionElement[bytes]):
    """PostgreSQL: the tag ids and then the scores of a row of `predictions` that are at or above a score."""

    name = "slices"
    inherit_cache = True

    def __init__(self, score: int) -> None:
        super().__init__(bindparam("packed_score", score, SmallInteger, unique=True))
        self.type = _PackedType()


@compiles(_Slices, "postgresql")
def _slices_postgresql(element: _Slices, compiler: SQLCompiler, **kw: Any) -> str:
    start = start_of_slice(compiler.process(element.clauses, **kw))
    return (
        f"case when predictions.tag_ids is null then array_send(predictions.wide_tag_ids[{start}:]) "
        f"else array_send(predictions.tag_ids[{start}:]) end || array_send(predictions.scores[{start}:])"
    )


def packed(connection: Connection, score: int) -> list[ColumnElement[Any]]:
    """The last columns of a select list from `predictions`, for `unpack` with the same score."""
    if connection.dialect.name == "postgresql":
        return [_Slices(score)]
    # Whole blobs: numpy finds the score in thousands of rows in the time that one call of a function takes SQLite.
    return [predictions.c.tag_ids, predictions.c.scores]


def unpack(connection: Connection, rows: Sequence[Any], score: int) -> tuple[Int64Array, Int32Array, Int16Array]:
    """Decode the columns `packed` of many rows.

    Args:
        rows: tuples that end with these columns.
        score: the one of these columns.

    Returns:
        (rows,) the number of tags of each row, then the tag ids of all rows and their scores in ten-thousandths,
        ascending by score within a row, ties by tag id.
    """
    if connection.dialect.name == "postgresql":
        return array_format.split_pairs([row[-1] for row in rows])
    return blob_format.rows_reaching([row[-2] for row in rows], [row[-1] for row in rows], score)
