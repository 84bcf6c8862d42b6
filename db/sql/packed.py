"""The tags of an image at or above a score as one value of a select list, and its decoding for many rows at once."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Dialect, SmallInteger, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import UserDefinedType

from db.arrays.types import Int16Array
from db.sql.array_format import split_pairs
from db.sql.score_sql import start_of_slice

_SCORE_BITS = 16
"""SQLite returns a tag as one integer, score << 16 | tag id."""


class _PackedType(UserDefinedType[bytes | str | None]):
    """The dialect's own form of a packed row. `unpack` decodes many rows at once."""

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


def unpack(connection: Connection, packed: Sequence[Any]) -> tuple[npt.NDArray[np.int64], Int16Array, Int16Array]:
    """Decode the column `Packed` of many rows.

    Returns:
        (rows,) the number of tags of each row, then the tag ids of all rows and their scores in ten-thousandths, in no
        order within a row.
    """
    if connection.dialect.name == "postgresql":
        return split_pairs(packed)
    counts = np.array([text.count(",") + 1 if text else 0 for text in packed], dtype=np.int64)
    joined = ",".join(text for text in packed if text)
    numbers = np.array(joined.split(","), dtype=np.int64) if joined else np.empty(0, dtype=np.int64)
    tag_ids = (numbers & ((1 << _SCORE_BITS) - 1)).astype(np.int16)
    return counts, tag_ids, (numbers >> _SCORE_BITS).astype(np.int16)
