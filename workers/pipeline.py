"""The image path, from ids of rows to stored scores: fetch - decode - infer - write."""

import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import Connection

from db.database import Database
from db.errors import Reason
from db.ledger import images
from db.ledger import workers as worker_rows
from db.ledger.duplicates import StoredResult
from db.ledger.models import Model
from db.ledger.results import Failure, Prediction, save
from db.ledger.workers import Stage, Worker
from db.scores import Scores
from workers.images.decode import Decoded
from workers.inference.infer import Inferencer
from workers.inference.self_test import SelfTest
from workers.load import Broken, Loaded, Loader
from workers.models.spec import ModelSpec
from workers.options import Options
from workers.telemetry.metrics import WorkerMetrics

WRITE_SECONDS = 5.0
"""A chunk that takes longer is written bit by bit: progress shows, and a crash costs seconds, not minutes."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a chunk."""

    images: int
    done: int
    failed: int
    skipped: int
    """Were done already: delivery is at least once."""
    seconds: float

    @property
    def left(self) -> int:
        """Not begun, because the worker was asked to stop."""
        return self.images - self.done - self.failed - self.skipped


class Pipeline:
    """One shared model, its loader, and the database. Threads run chunks through it side by side.

    Args:
        model: the row that `spec` was registered as.
    """

    def __init__(self, database: Database, model: Model, spec: ModelSpec, options: Options) -> None:
        self.database = database
        self.model = model
        self.metrics = WorkerMetrics()
        self.inferencer = Inferencer(spec, options, floor=model.floor)
        self.self_test = SelfTest(spec, self.inferencer, options.max_pixels)
        self.worker = Worker(
            f"{socket.gethostname()}:{os.getpid()}", " ".join(self.inferencer.where), datetime.now(UTC)
        )
        self._loader = Loader(database, model.id, spec, options, self.metrics)

    def run(self, image_ids: Sequence[int], *, should_stop: Callable[[], bool] = lambda: False) -> Report:
        """Tag the images of one chunk that are still pending, and write the results: one transaction for a chunk
        of ordinary speed, one every few seconds for a slow one.

        What is finished when `should_stop` says so is written; the rest stays pending.

        Raises:
            TransientError: the database does not answer. What was written stays; the chunk can be run again.
            ModelError: no image of a batch got scores. What came before it is written.
        """
        begun = time.perf_counter()
        with self.metrics.active():
            with self.database.read() as connection:
                pending = images.pending_among(connection, image_ids, self.model.id)
            results = _Results(self)
            try:
                with closing(self._loader.batches(pending, should_stop)) as batches:
                    for batch in batches:
                        results.add(batch, self._infer(batch))
                        if should_stop():
                            break
            except Exception:
                with suppress(Exception):
                    results.write()  # what was finished does not have to be done again
                raise
            results.write()
        self.metrics.count_skipped(len(image_ids) - len(pending))
        return Report(
            images=len(image_ids),
            done=results.done,
            failed=results.failed,
            skipped=len(image_ids) - len(pending),
            seconds=time.perf_counter() - begun,
        )

    def tell(self, connection: Connection) -> None:
        """That this worker is alive, and what it spends its time on."""
        worker_rows.save(connection, self.model.id, self.worker, self.metrics.recent())

    def _infer(self, batch: Sequence[Loaded | Broken]) -> Iterator[Scores | None]:
        """Scores of those that have pixels, in order."""
        pixels = [one.pixels for one in batch if isinstance(one, Loaded) and one.pixels]
        if not pixels:
            return iter(())
        inferred = self.inferencer.scores(pixels)
        self.metrics.add(Stage.WAIT, inferred.wait_seconds, len(pixels))
        self.metrics.add(Stage.INFER, inferred.device_seconds, len(pixels))
        return iter(inferred.scores)


class _Results:
    """Results of one chunk on their way to the database."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.done = 0
        self.failed = 0
        self._pipeline = pipeline
        self._by_content: dict[bytes, StoredResult | Failure] = {}
        """What copies in the same chunk get."""
        self._predictions: list[Prediction] = []
        self._failures: list[Failure] = []
        self._duplicates = 0
        self._written_at = time.monotonic()

    def add(self, batch: Sequence[Loaded | Broken], scores: Iterator[Scores | None]) -> None:
        """A batch, and the scores of those that were inferred; None where the model gives NaN."""
        for one in batch:
            if isinstance(one, Broken):
                self._failures.append(one.failure)
                if one.sha256:
                    self._by_content[one.sha256] = one.failure
                continue
            if one.pixels:
                self._by_content[one.sha256] = self._found(one, one.pixels, next(scores))
            else:
                self._duplicates += 1
                if isinstance(one.content, StoredResult):
                    self._by_content[one.sha256] = one.content
            self._add(one, self._by_content[one.sha256])
        if time.monotonic() - self._written_at > WRITE_SECONDS:
            self.write()

    def _found(self, one: Loaded, pixels: Decoded, scores: Scores | None) -> StoredResult | Failure:
        if scores is None:
            return Failure(one.image.id, one.image.version, Reason.NAN, self._pipeline.inferencer.nan)
        return StoredResult(pixels.width, pixels.height, pixels.format, scores)

    def _add(self, one: Loaded, found: StoredResult | Failure) -> None:
        if isinstance(found, Failure):
            self._failures.append(replace(found, image_id=one.image.id, image_version=one.image.version))
            return
        self._predictions.append(
            Prediction(
                image_id=one.image.id,
                image_version=one.image.version,
                file_bytes=one.size,
                width=found.width,
                height=found.height,
                format=found.format,
                sha256=one.sha256,
                scores=found.scores,
            )
        )

    def write(self) -> None:
        """Everything added since the last time, in one transaction."""
        pipeline, finished = self._pipeline, len(self._predictions) + len(self._failures)
        pipeline.metrics.count_results(Counter(one.reason for one in self._failures), self._duplicates)
        with pipeline.metrics.timed(Stage.WRITE, finished), pipeline.database.write() as connection:
            save(connection, pipeline.model.id, self._predictions, self._failures)
            pipeline.tell(connection)
        self.done += len(self._predictions)
        self.failed += len(self._failures)
        self._predictions, self._failures, self._duplicates = [], [], 0
        self._written_at = time.monotonic()
