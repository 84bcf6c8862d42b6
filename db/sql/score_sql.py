"""SQL elements for one threshold over stored scores. The compilers below hold the SQL of each dialect.

PostgreSQL: scores ascend within a row, so `width_bucket` is a binary search in C, and the tags at or above a score are
a slice at the end of the row. SQLite hands out whole blobs, which numpy cuts (`db.sql.packed`). Policies with more than
one threshold start from the tags at or above their lowest one (`db.read.tag_batches`).
"""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    SmallInteger,
    and_,
    bindparam,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from db.schema import images


def start_of_slice(score: str) -> str:
    """PostgreSQL: the position in a row of `predictions` where the scores at or above a score begin, 1-based."""
    # Scores are integers: "at least s" is "above s - 1", which a bucket search finds.
    return f"width_bucket(({score} - 1)::smallint, predictions.scores) + 1"


class NumberReaching(FunctionElement[int]):
    """PostgreSQL: the number of tags of a row of `predictions` at or above a score."""

    name = "reaching"
    inherit_cache = True

    def __init__(self, score: int) -> None:
        super().__init__(bindparam("reaching_score", score, SmallInteger, unique=True))
        self.type = Integer()


@compiles(NumberReaching, "postgresql")
def _number_reaching_postgresql(element: NumberReaching, compiler: SQLCompiler, **kw: Any) -> str:
    return f"cardinality(predictions.scores) + 1 - ({start_of_slice(compiler.process(element.clauses, **kw))})"


def begins_with(prefix: str) -> ColumnElement[bool]:
    """The condition that the uri of an image begins with a prefix, case-sensitive and without wildcards."""
    # A range can use the index on uri. LIKE would need escaped wildcards and an index that is independent of the
    # locale. Two comparisons, since PostgreSQL's BETWEEN accepts no collation at its bounds.
    return and_(images.c.uri >= prefix, images.c.uri <= prefix + "\U0010ffff")
