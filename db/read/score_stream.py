"""All scores of many images, as fast as the database delivers them, for counts over a whole collection."""

from collections.abc import Iterator

from sqlalchemy import ColumnElement, Connection, select

from db.arrays.batches import prefetched
from db.arrays.score_batch import ScoreBatch
from db.ledger.models import Model
from db.read.tag_batches import IMAGES_AT_ONCE
from db.schema import predictions
from db.sql.scores.packed import packed, unpack
from db.sql.streams import stream_rows


def every_score(connection: Connection, model: Model, where: ColumnElement[bool]) -> Iterator[ScoreBatch]:
    """Images that have a prediction, with or without scores, in no particular order.

    Args:
        where: the condition on `predictions` that selects the model and the images.
    """
    query = select(*packed(connection, model.floor)).select_from(predictions).where(where)
    for rows in prefetched(stream_rows(connection, query, IMAGES_AT_ONCE)):
        yield ScoreBatch(*unpack(connection, rows, model.floor))
