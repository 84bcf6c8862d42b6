"""The distribution of one tag's probabilities over the collection. It needs no ground truth."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, literal, select

from db.ledger.models import Model
from db.scores import SCALE
from db.sql.conditions import ScoreOf
from db.sql.gone_scope import tagged


@dataclass(frozen=True, slots=True)
class Histogram:
    """The scores of a tag in bins of equal width from 0 to 1. The last bin includes 1."""

    images: int
    """Images that the model has tagged."""
    counts: list[int]
    """(bins,) images whose score lies in each bin."""

    @property
    def not_stored(self) -> int:
        """Images whose score of the tag is below the model's floor."""
        return self.images - sum(self.counts)

    @property
    def edges(self) -> list[float]:
        """(bins + 1,) probabilities."""
        return [number / len(self.counts) for number in range(len(self.counts) + 1)]


def histogram(connection: Connection, model: Model, tag_id: int, bins: int) -> Histogram:
    """Count the scores of a tag in one statement.

    Args:
        bins: number of bins, 1 or more.
    """
    scored = select(ScoreOf(tag_id).label("score")).where(tagged(connection, model.id)).subquery()
    # Integer arithmetic, so that no rounding moves a score over an edge.
    binned = select((scored.c.score * literal(bins)).op("/")(literal(SCALE)).label("bin")).subquery()
    query = select(binned.c.bin, func.count().label("images")).group_by(binned.c.bin)
    counts = [0] * bins
    images = 0
    for row in connection.execute(query):
        images += row.images
        if row.bin is not None:
            counts[min(row.bin, bins - 1)] += row.images
    return Histogram(images, counts)
