"""How the probabilities of one tag are spread over the collection. No truth is needed."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, literal, select

from db.ledger.models import Model
from db.scores import SCALE
from db.sql.conditions import ScoreOf
from db.sql.gone_scope import tagged


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


def histogram(connection: Connection, model: Model, tag_id: int, bins: int) -> Histogram:
    """Count the scores of a tag, one statement.

    Args:
        bins: 1 or more.
    """
    scored = select(ScoreOf(tag_id).label("score")).where(tagged(connection, model.id)).subquery()
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
