"""How the probabilities of one tag are spread over the collection. No truth is needed."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Integer, SmallInteger, bindparam, func, literal, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from db.models import Model
from db.schema import predictions
from db.scores import SCALE


@dataclass(frozen=True, slots=True)
class Histogram:
    """The scores of a tag in bins of equal width from 0 to 1. The last one holds 1 too."""

    images: int
    """That the model has tagged."""
    counts: list[int]
    """Images whose score lies in each bin."""

    @property
    def not_stored(self) -> int:
        """Images where the tag lies below the model's floor."""
        return self.images - sum(self.counts)

    @property
    def edges(self) -> list[float]:
        """(bins + 1,)"""
        return [number / len(self.counts) for number in range(len(self.counts) + 1)]


class _ScoreOf(FunctionElement[int]):
    """The score of one tag in a row of `predictions`, or null."""

    name = "score_of"
    inherit_cache = True

    def __init__(self, tag_id: int) -> None:
        super().__init__(bindparam("score_of_tag", tag_id, SmallInteger, unique=True))
        self.type = Integer()


@compiles(_ScoreOf, "postgresql")
def _score_of_postgresql(element: _ScoreOf, compiler: SQLCompiler, **kw: Any) -> str:
    # One element a row; unnesting would make a row of every score of every image.
    tag_id = compiler.process(element.clauses, **kw)
    return f"predictions.scores[array_position(predictions.tag_ids, {tag_id}::smallint)]"


_SCORE_OF_SQLITE = (
    "select k.score from tag_scores k where k.model_id = predictions.model_id and k.image_id = predictions.image_id"
)


@compiles(_ScoreOf, "sqlite")
def _score_of_sqlite(element: _ScoreOf, compiler: SQLCompiler, **kw: Any) -> str:
    # One search in the clustered key a row; the key does not begin with the tag, so the other way is a whole scan.
    return f"({_SCORE_OF_SQLITE} and k.tag_id = {compiler.process(element.clauses, **kw)})"


def histogram(connection: Connection, model: Model, tag_id: int, bins: int) -> Histogram:
    """Count the scores of a tag, one statement.

    Args:
        bins: 1 or more.
    """
    scored = select(_ScoreOf(tag_id).label("score")).where(predictions.c.model_id == model.id).subquery()
    # Whole numbers, so that no rounding moves a score over an edge.
    binned = select((scored.c.score * literal(bins)).op("/")(literal(SCALE)).label("bin")).subquery()
    query = select(binned.c.bin, func.count().label("images")).group_by(binned.c.bin)
    counts = [0] * bins
    images = 0
    for row in connection.execute(query):
        images += row.images
        if row.bin is not None:
            counts[min(row.bin, bins - 1)] += row.images
    return Histogram(images, counts)
