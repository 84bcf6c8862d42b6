"""All scores of a model, as fast as the database delivers them, for counts over a whole collection."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, select

from db.arrays.types import Int16Array, Int32Array, Int64Array
from db.ledger.models import Model
from db.read.tag_batches import IMAGES_AT_ONCE, prefetched
from db.schema import predictions
from db.sql.gone_scope import tagged
from db.sql.packed import packed, unpack
from db.sql.streams import stream_rows


@dataclass(frozen=True, slots=True)
class ScoreBatch:
    """The scores of some images, without their ids."""

    counts: Int64Array
    """(images,) number of scores of each image."""
    tag_ids: Int32Array
    """(scores,)"""
    scores: Int16Array
    """(scores,) ten-thousandths, parallel to `tag_ids`, ascending within an image."""

    def __len__(self) -> int:
        return int(self.counts.size)

    @property
    def rows(self) -> Int64Array:
        """(scores,) the position of each score's image in this batch."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.counts)


def every_score(connection: Connection, model: Model) -> Iterator[ScoreBatch]:
    """All images that have a prediction, with or without scores, in no particular order."""
    query = select(*packed(connection, model.floor)).select_from(predictions).where(tagged(connection, model.id))
    for rows in prefetched(stream_rows(connection, query, IMAGES_AT_ONCE)):
        yield ScoreBatch(*unpack(connection, rows, model.floor))
