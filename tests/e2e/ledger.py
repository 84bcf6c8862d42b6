"""The database as the tests see it: asked while other processes write it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, func, select

from db.database import Database
from db.schema import changed_blocks, deliveries, failures, images, predictions, tag_scores

NOT_STORED = -1


@dataclass(frozen=True)
class Ledger:
    """Questions to a database that other processes write. Every one opens it anew."""

    url: str

    def predicted(self) -> list[str]:
        """A uri for every prediction."""
        return self._scalars(select(images.c.uri).join(predictions, predictions.c.image_id == images.c.id))

    def failed(self) -> dict[str, str]:
        """Reason by uri."""
        query = select(images.c.uri, failures.c.reason).join(failures, failures.c.image_id == images.c.id)
        with self._connection() as connection:
            return {row.uri: row.reason for row in connection.execute(query)}

    def finished(self) -> list[str]:
        """A uri for every prediction and for every failure, sorted: each image once when all is well."""
        return sorted([*self.predicted(), *self.failed()])

    def uris(self) -> list[str]:
        """Every image, in order of registration."""
        return self._scalars(select(images.c.uri).order_by(images.c.id))

    def count(self) -> int:
        """Predictions and failures together; 0 while there are no tables yet."""
        with self._connection() as connection:
            if not connection.dialect.has_table(connection, "failures"):
                return 0
            return sum(
                connection.scalar(select(func.count()).select_from(table)) or 0 for table in (predictions, failures)
            )

    def changed_blocks(self) -> list[int]:
        """Blocks of images that were written since their postings were built."""
        return self._scalars(select(changed_blocks.c.block).distinct())

    def deliveries(self) -> int:
        """Chunks that workers hold, or held when they died."""
        return self._scalars(select(func.count()).select_from(deliveries))[0]

    def scores(self, tags: int) -> dict[str, npt.NDArray[np.int16]]:
        """By uri the score of every tag in the model's order, NOT_STORED where there is none."""
        table = {uri: np.full(tags, NOT_STORED, dtype=np.int16) for uri in self.predicted()}
        query = select(images.c.uri, tag_scores.c.tag_id, tag_scores.c.score).join(
            tag_scores, tag_scores.c.image_id == images.c.id
        )
        with self._connection() as connection:
            for row in connection.execute(query):
                table[row.uri][row.tag_id] = row.score
        return table

    def _scalars(self, query: Any) -> list[Any]:
        with self._connection() as connection:
            return list(connection.scalars(query))

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        database = Database(self.url)
        try:
            with database.read() as connection:
                yield connection
        finally:
            database.close()
