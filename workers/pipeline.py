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
from workers.load import FailedImage, LoadedImage, Loader
from workers.models.spec import ModelSpec
from workers.options import Options
from workers.telemetry.metrics import WorkerMetrics

WRITE_SECONDS = 5.0
"""Results of a slow chunk are written at this interval: progress is visible, and a crash loses seconds of work."""


@dataclass(frozen=True, slots=True)
class Report:
    """Counts of a processed chunk, in images."""

    images: int
    done: int
    failed: int
    skipped: int
    """Had a result already, since delivery is at least once."""
    seconds: float

    @property
    def left(self) -> int:
        """Not processed, because the worker stops."""
        return self.images - self.done - self.failed - self.skipped


class Pipeline:
    """One model, its loader, and the database. Threads run chunks through it concurrently.

    Args:
        model: the row of `spec` in the database.

    Raises:
        ModelError: the weights do not fit the specification.
        SettingsError: the device does not exist.
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
        """Tag the images of one chunk that are still pending, and write the results.

        They are written in one transaction, or every `WRITE_SECONDS` if the chunk is slow. When `should_stop` returns
        true, finished images are written and the others stay pending.

        Raises:
            TransientError: the database does not answer. Results written before are kept; the chunk can be run again.
            ModelError: no image of a batch got scores. Results before that batch are written.
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
                    results.write()  # finished images need not be computed again
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

    def save_heartbeat(self, connection: Connection) -> None:
        """Write the row of this worker: that it is alive, and how it spends its time."""
        worker_rows.save(connection, self.model.id, self.worker, self.metrics.recent())

    def _infer(self, batch: Sequence[LoadedImage | FailedImage]) -> Iterator[Scores | None]:
        """Scores of the images with pixels, in order; None where the model gives NaN."""
        pixels = [one.pixels for one in batch if isinstance(one, LoadedImage) and one.pixels]
        if not pixels:
            return iter(())
        inferred = self.inferencer.scores(pixels)
        self.metrics.add(Stage.WAIT, inferred.wait_seconds, len(pixels))
        self.metrics.add(Stage.INFER, inferred.device_seconds, len(pixels))
        return iter(inferred.scores)


class _Results:
    """Results of one chunk, collected and written to the database."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.done = 0
        self.failed = 0
        self._pipeline = pipeline
        self._by_content: dict[bytes, StoredResult | Failure] = {}
        """Results by SHA-256 of the file, for duplicates within the chunk."""
        self._predictions: list[Prediction] = []
        self._failures: list[Failure] = []
        self._duplicates = 0
        self._written_at = time.monotonic()

    def add(self, batch: Sequence[LoadedImage | FailedImage], scores: Iterator[Scores | None]) -> None:
        """Add a batch. Writes if the last write is `WRITE_SECONDS` ago.

        Args:
            scores: of the images with pixels, in order; None where the model gives NaN.
        """
        for one in batch:
            if isinstance(one, FailedImage):
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

    def _found(self, one: LoadedImage, pixels: Decoded, scores: Scores | None) -> StoredResult | Failure:
        if scores is None:
            return Failure(one.image.id, one.image.version, Reason.NAN, self._pipeline.inferencer.nan)
        return StoredResult(pixels.width, pixels.height, pixels.format, scores)

    def _add(self, one: LoadedImage, found: StoredResult | Failure) -> None:
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
        """Write all results added since the last write, in one transaction."""
        pipeline, finished = self._pipeline, len(self._predictions) + len(self._failures)
        pipeline.metrics.count_results(Counter(one.reason for one in self._failures), self._duplicates)
        with pipeline.metrics.timed(Stage.WRITE, finished), pipeline.database.write() as connection:
            save(connection, pipeline.model.id, self._predictions, self._failures)
            pipeline.save_heartbeat(connection)
        self.done += len(self._predictions)
        self.failed += len(self._failures)
        self._predictions, self._failures, self._duplicates = [], [], 0
        self._written_at = time.monotonic()
