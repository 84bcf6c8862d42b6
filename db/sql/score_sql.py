"""SQL elements for one threshold over stored scores. The compilers below hold the SQL of each dialect.

PostgreSQL: scores ascend within a row, so `width_bucket` is a binary search in C, and the tags at or above a score are
a slice at the end of the row. SQLite: they are one range of the clustered key per image. Policies with more than one
threshold start from the slice at or above their lowest one (`db.read.tag_batches`).
"""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    SmallInteger,
    and_,
    bindparam,
    literal_column,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from db.schema import images, tag_scores
from db.sql.gone_scope import in_scope, tagged


def start_of_slice(score: str) -> str:
    """PostgreSQL: the position in a row of `predictions` where the scores at or above a score begin, 1-based."""
    # Scores are integers: "at least s" is "above s - 1", which a bucket search finds.
    return f"width_bucket(({score} - 1)::smallint, predictions.scores) + 1"


class NumberReaching(FunctionElement[int]):
    """The number of tags of a row of `predictions` at or above a score."""

    name = "reaching"
    inherit_cache = True

    def __init__(self, score: int) -> None:
        super().__init__(bindparam("reaching_score", score, SmallInteger, unique=True))
        self.type = Integer()


@compiles(NumberReaching, "postgresql")
def _number_reaching_postgresql(element: NumberReaching, compiler: SQLCompiler, **kw: Any) -> str:
    return f"cardinality(predictions.scores) + 1 - ({start_of_slice(compiler.process(element.clauses, **kw))})"


_NUMBER_SQLITE = (
    "select count(*) from tag_scores k where k.model_id = predictions.model_id and k.image_id = predictions.image_id"
)


@compiles(NumberReaching, "sqlite")
def _number_reaching_sqlite(element: NumberReaching, compiler: SQLCompiler, **kw: Any) -> str:
    return f"({_NUMBER_SQLITE} and k.score >= {compiler.process(element.clauses, **kw)})"


class _SliceOf(FunctionElement[Any]):
    """PostgreSQL: the elements of `tag_ids` or `scores` at or above a score, one row each."""

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


def tags_reaching(connection: Connection, model_id: int, score: int) -> Select[tuple[int, int]]:
    """The query of (tag_id, score): a row per tag at or above a score, of all images in the transaction's scope."""
    if connection.dialect.name == "postgresql":
        columns = (_SliceOf("tag_ids", score).label("tag_id"), _SliceOf("scores", score).label("score"))
        return select(*columns).where(tagged(connection, model_id))
    return select(tag_scores.c.tag_id, tag_scores.c.score).where(
        tag_scores.c.model_id == model_id,
        tag_scores.c.score >= score,
        in_scope(connection, tag_scores.c.image_id),
    )


def begins_with(prefix: str) -> ColumnElement[bool]:
    """The condition that the uri of an image begins with a prefix, case-sensitive and without wildcards."""
    # A range can use the index on uri. LIKE would need escaped wildcards and an index that is independent of the
    # locale. Two comparisons, since PostgreSQL's BETWEEN accepts no collation at its bounds.
    return and_(images.c.uri >= prefix, images.c.uri <= prefix + "\U0010ffff")
