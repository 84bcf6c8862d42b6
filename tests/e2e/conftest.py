"""What the end-to-end tests look at: the database, and what the model itself says about the same files."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sqlalchemy import Connection, func, select

from db.batches import batched
from db.database import Database
from db.errors import ImageError
from db.schema import deliveries, failures, images, predictions, tag_scores
from db.scores import SCALE
from tests.e2e import forked
from tests.e2e.forked import Workers

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


@pytest.fixture
def ledger() -> Callable[[str], Ledger]:
    """Asks the database behind a URL."""
    return Ledger


@pytest.fixture
def own_scores() -> Callable[..., dict[str, npt.NDArray[np.int16]]]:
    """What the model itself says: floor(p * 10000) of its own float32 probabilities, by uri, for every tag.

    A float32 sum may end in another last bit when the same image is in another batch, so the batches have to be those
    of the worker: chunks in order of registration, batches within a chunk, images that fail left out.
    """
    from workers.decode import Decoded, Decoder
    from workers.fetch import Fetcher
    from workers.infer import Inferencer
    from workers.models.registry import find_model
    from workers.options import Options

    def decode_all(decode: Callable[[str], Decoded], uris: Sequence[str]) -> dict[str, Decoded]:
        decoded = {}
        for uri in uris:
            try:
                decoded[uri] = decode(uri)
            except ImageError:
                continue
        return decoded

    def ask(
        model: Any, uris: Sequence[str], *, chunk_size: int, batch_size: int, floor: int = 0
    ) -> dict[str, npt.NDArray[np.int16]]:
        spec = find_model(str(model))
        options = Options(batch_size=batch_size)
        fetcher = Fetcher(max_bytes=options.max_bytes, connections=1)
        decoder = Decoder(spec, max_pixels=options.max_pixels)
        inferencer = Inferencer(spec, options, floor=0)
        found = {}
        for chunk in batched(uris, chunk_size):
            for batch in batched(chunk, batch_size):
                decoded = decode_all(lambda uri: decoder.decode(fetcher.fetch(uri)), batch)
                if decoded:
                    probabilities = inferencer.probabilities(list(decoded.values())).numpy()
                    scores = np.floor(probabilities.astype(np.float64) * SCALE).astype(np.int16)
                    found |= dict(zip(decoded, np.where(scores >= floor, scores, NOT_STORED), strict=True))
        return found

    return ask


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    """Starts `tagonce worker` processes; see `tests.e2e.forked`."""
    with forked.workers(tmp_path) as started:
        yield started
