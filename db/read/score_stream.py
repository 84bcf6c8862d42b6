"""All scores of a model, as fast as the database gives them: for what is counted over a whole collection."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, select

from db.batches import batched
from db.ledger.models import Model
from db.read.tag_batches import IMAGES_AT_ONCE, Int64Array, prefetched
from db.schema import Int16Array, predictions
from db.sql.gone_scope import tagged
from db.sql.score_sql import Packed, unpack
from db.sql.streams import stream_column


@dataclass(frozen=True, slots=True)
class ScoreBatch:
    """Some images; which ones is not told."""

    counts: Int64Array
    """(images,) scores of each."""
    tag_ids: Int16Array
    """In no order within an image."""
    scores: Int16Array
    """In step with `tag_ids`."""

    def __len__(self) -> int:
        return int(self.counts.size)

    @property
    def rows(self) -> Int64Array:
        """For every score the position of its image in this batch."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.counts)


def every_score(connection: Connection, model: Model) -> Iterator[ScoreBatch]:
    """Every image that has a prediction, scores or none, in whatever order the database has them."""
    query = select(Packed(model.floor)).select_from(predictions).where(tagged(connection, model.id))
    for packed in prefetched(batched(stream_column(connection, query, IMAGES_AT_ONCE), IMAGES_AT_ONCE)):
        yield ScoreBatch(*unpack(connection, packed))
