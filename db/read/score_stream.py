"""All scores of a model, as fast as the database gives them: for what is counted over a whole collection."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, Select, select

from db.batches import batched
from db.ledger.gone import tagged
from db.ledger.models import Model
from db.read.tag_batches import IMAGES_AT_ONCE, prefetched
from db.schema import Int16Array, Int64Array, predictions
from db.sql.postgresql_bulk import errors_as_sqlalchemys
from db.sql.score_sql import Packed, unpack


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
    query = select(Packed(model.floor)).select_from(predictions).where(tagged(connection, model))
    dialect = connection.dialect.name
    rows = _copied(connection, query) if dialect == "postgresql" else _selected(connection, query)
    for packed in prefetched(batched(rows, IMAGES_AT_ONCE)):
        yield ScoreBatch(*unpack(dialect, packed))


def _copied(connection: Connection, query: Select[Any]) -> Iterator[Any]:
    # A cursor has the server rest while a batch is on its way; COPY has it run ahead.
    literal = query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    statement = f"copy ({literal}) to stdout (format binary)"
    driver = connection.connection.driver_connection
    with (
        errors_as_sqlalchemys(connection, statement),
        driver.cursor() as cursor,  # type: ignore[union-attr]  # None only of a closed connection
        cursor.copy(statement) as copy,
    ):
        copy.set_types(["bytea"])
        for (packed,) in copy.rows():
            yield packed


def _selected(connection: Connection, query: Select[Any]) -> Iterator[Any]:
    with connection.execute(query, execution_options={"yield_per": IMAGES_AT_ONCE}) as result:
        yield from result.scalars()
