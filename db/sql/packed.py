"""The tags of an image at or above a score as one value of a select list, and its decoding for many rows at once."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect, SmallInteger, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import UserDefinedType

from db.arrays.types import Int16Array, Int32Array, Int64Array
from db.sql import array_format, blob_format
from db.sql.score_sql import start_of_slice


class _PackedType(UserDefinedType[bytes]):
    """The dialect's own form of a packed row. `unpack` decodes many rows at once."""

    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:  # noqa: ARG002
        return None


class Packed(FunctionElement[bytes]):
    """The tags of a row of `predictions` that are at or above a score, packed for `unpack`. For select lists."""

    name = "packed"
    inherit_cache = True

    def __init__(self, score: int) -> None:
        super().__init__(bindparam("packed_score", score, SmallInteger, unique=True))
        self.type = _PackedType()


@compiles(Packed, "postgresql")
def _packed_postgresql(element: Packed, compiler: SQLCompiler, **kw: Any) -> str:
    start = start_of_slice(compiler.process(element.clauses, **kw))
    return (
        f"case when predictions.tag_ids is null then array_send(predictions.wide_tag_ids[{start}:]) "
        f"else array_send(predictions.tag_ids[{start}:]) end || array_send(predictions.scores[{start}:])"
    )


@compiles(Packed, "sqlite")
def _packed_sqlite(element: Packed, compiler: SQLCompiler, **kw: Any) -> str:
    return f"tagonce_packed(predictions.tag_ids, predictions.scores, {compiler.process(element.clauses, **kw)})"


def unpack(connection: Connection, packed: Sequence[Any]) -> tuple[Int64Array, Int32Array, Int16Array]:
    """Decode the column `Packed` of many rows.

    Returns:
        (rows,) the number of tags of each row, then the tag ids of all rows and their scores in ten-thousandths, in no
        order within a row.
    """
    if connection.dialect.name == "postgresql":
        return array_format.split_pairs(packed)
    return blob_format.split_pairs(packed)
