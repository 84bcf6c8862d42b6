"""Counts of the whole collection, made in the background: pages do not wait for them, and show their age."""

import hashlib
import logging
import math
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from db import sampling
from db.arrays.types import Int64Array
from db.database import Database
from db.errors import TagonceError
from db.ledger import run_progress
from db.ledger.models import Model
from db.read import distribution
from db.read.distribution import Distribution
from db.read.tag_batches import TagBatch
from db.sql.connection.connections import lift_statement_timeout
from workers.cache_folder import cache_folder

POOL = 10_000
"""Images drawn at random and held in memory. Diverse and undecided ones are selected from them, and changes that cannot
be counted are estimated from them. 191 scores per image take 12 MB."""
_POOL_SECONDS = 20.0
"""Seconds that a page waits for the first counts."""
_FRESH_SECONDS, _COST_SHARE = 600.0, 20
"""A request renews counts that are older than this. Counts that took a minute are valid for twenty."""
_TRUE_FOR = timedelta(days=1)
"""Time for which counts of an unchanged number of images count as current; images are rarely tagged again."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DrawnSample:
    """Images drawn at random, read in one transaction."""

    pool: TagBatch
    """The images with all of their scores."""
    population: int
    """Images of the model at that moment."""

    @property
    def is_everything(self) -> bool:
        """The images are the whole collection, so their counts are exact."""
        return len(self.pool) >= self.population

    def scaled(self, counts: Int64Array) -> Int64Array:
        """Counts of the pool as estimates for the collection."""
        if self.is_everything or not len(self.pool):
            return counts
        scaled: Int64Array = np.rint(counts * (self.population / len(self.pool))).astype(np.int64)
        return scaled


class Collection:
    """All images of a model. Threads share it."""

    def __init__(self, database: Database, model: Model) -> None:
        self._database = database
        self._model = model
        self._file = cache_folder() / "distributions" / f"{model.fingerprint[:32]}-{_place(database)}.npz"
        self._lock = threading.Lock()
        self._old_at = math.inf
        """Time by the monotonic clock."""
        self._has_pool = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._drawn: DrawnSample | None = None
        self.error: str | None = None
        """The reason if counting failed."""
        self.counting = False
        self.counted = 0
        """Images counted so far, during a count."""
        self.distribution: Distribution | None = distribution.load(self._file)
        """The counts of the last time."""

    @property
    def pool(self) -> TagBatch | None:
        """Images drawn at random, with all scores; None if drawing takes too long, or there are no images."""
        self._has_pool.wait(_POOL_SECONDS)
        return self._drawn.pool if self._drawn else None

    @property
    def drawn(self) -> DrawnSample | None:
        """The same without waiting; None if it is empty."""
        return self._drawn if self._drawn and len(self._drawn.pool) else None

    def count_again(self) -> None:
        """Start to count if the counts are old."""
        if time.monotonic() > self._old_at:
            self.count()

    def count(self, *, anyway: bool = False) -> None:
        """Start to count, unless a count is running.

        Args:
            anyway: even if the counts are current.
        """
        with self._lock:
            if self.counting:
                return
            self.counting, self.counted, self.error = True, 0, None
            self._idle.clear()
        threading.Thread(target=self._count, args=(anyway,), name="count", daemon=True).start()

    def wait(self) -> None:
        """Wait until the running count ends."""
        self._idle.wait()

    def _count(self, anyway: bool) -> None:
        begun = time.monotonic()
        try:
            with self._database.read() as connection:
                lift_statement_timeout(connection)
                population = run_progress.predicted(connection, self._model.id)
                ids = sampling.random_ids(connection, self._model, POOL, seed=1)
                self._drawn = DrawnSample(sampling.load(connection, self._model, ids, self._model.floor), population)
            self._has_pool.set()
            if anyway or not self._is_true_still(population):
                with self._database.read() as connection:
                    lift_statement_timeout(connection)
                    self.distribution = distribution.count_scores(connection, self._model, advance=self._advance)
                self.distribution.save(self._file)
        except (TagonceError, OSError) as error:
            self.error = str(error)
        except Exception:
            log.exception("The collection could not be counted")
            self.error = "Counting failed; the log of `tagonce review` says why."
        finally:
            cost = time.monotonic() - begun
            self._old_at = time.monotonic() + max(_FRESH_SECONDS, _COST_SHARE * cost)
            self._has_pool.set()
            self.counting = False
            self._idle.set()

    def _is_true_still(self, population: int) -> bool:
        known = self.distribution
        return known is not None and known.images == population and datetime.now(UTC) - known.counted_at < _TRUE_FOR

    def _advance(self, images: int) -> None:
        self.counted += images


def _place(database: Database) -> str:
    """A key of the collection: of the database, and of the inode of a file, which changes when it is created again."""
    place = database.label
    if database.file is not None:
        file = database.file.resolve()
        place = f"{file}#{file.stat().st_ino}"
    return hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()[:16]
