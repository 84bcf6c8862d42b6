"""The image path, from ids of rows to stored scores: fetch - decode - infer - write."""

import math
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from queue import Empty

from sqlalchemy import Connection

from db.database import Database
from db.errors import Reason
from db.ledger import duplicates, images
from db.ledger import workers as worker_rows
from db.ledger.duplicates import StoredResult
from db.ledger.images import Image
from db.ledger.models import Model
from db.ledger.results import Failure, Prediction, save
from db.ledger.workers import Stage, Worker
from workers.inference.batching import DeviceThread
from workers.inference.infer import Inferencer
from workers.inference.self_test import SelfTest
from workers.models.spec import ModelSpec
from workers.options import Options
from workers.stages import Decoded, Event, Fetched, Inferred, Listener, NotDecoded, NotFetched, Stages
from workers.telemetry.metrics import WorkerMetrics

WRITE_SECONDS = 5.0
"""A chunk that takes longer is written in parts: progress shows, and a crash costs seconds, not minutes."""
BATCHES_UNDER_WAY = 3
"""Limit of images between fetching and the device, in batches, of all chunks together."""
BYTES_UNDER_WAY = 512 * 1024 * 1024
"""Limit of files in memory, of all chunks together. A file larger than the share of its chunk is fetched alone."""
BYTES_UNKNOWN = 4 * 1024 * 1024
"""Assumed for a file whose size the source does not give."""
LOOK_UP_IMAGES = 64
"""Files whose hashes are looked up together in the database."""
LOOK_UP_SECONDS = 0.02
"""A file waits this long for others to be looked up with it, if nothing of its chunk is being decoded."""
STOP_POLL_SECONDS = 0.5
"""How often a chunk that waits asks whether the worker has to stop."""


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


@dataclass(frozen=True, slots=True)
class Share:
    """Limits of one chunk: equal parts of those of the process."""

    images: int
    bytes: int

    @property
    def refill(self) -> int:
        """Images that are fetched and looked up together. A look-up in the database costs milliseconds, however few."""
        return max(1, min(LOOK_UP_IMAGES, self.images // 2))

    @classmethod
    def of(cls, options: Options) -> "Share":
        """Enough images for the device and for every thread that fetches."""
        wanted = max(BATCHES_UNDER_WAY * options.batch_size, 3 * options.fetchers)
        return cls(math.ceil(wanted / options.concurrency), BYTES_UNDER_WAY // options.concurrency)


@dataclass(frozen=True, slots=True)
class Copy:
    """An image whose file has the content of another one."""

    image: Image
    size: int
    """Bytes of the file."""


Result = StoredResult | Failure
"""The result of a content, shared by all images that have it."""


class Pipeline:
    """One shared model, the threads that feed it, and the database. Threads run chunks through it side by side.

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
        self.device = DeviceThread(self.inferencer, self.metrics)
        self.stages = Stages(spec, options, self.metrics, self.device)
        self.share = Share.of(options)
        self.self_test = SelfTest(
            spec, lambda test: self.device.call(lambda: self.inferencer.scores(test).scores), options.max_pixels
        )
        self.worker = Worker(
            f"{socket.gethostname()}:{os.getpid()}", " ".join(self.inferencer.where), datetime.now(UTC)
        )

    def warm_up(self) -> None:
        """A first forward. Raises what `Inferencer.warm_up` does."""
        self.device.call(self.inferencer.warm_up)

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
            chunk = _Chunk(self, pending, results)
            try:
                chunk.run(should_stop)
            except Exception:
                with suppress(Exception):
                    results.write()  # finished images need not be computed again
                raise
            finally:
                self.device.close(chunk.listener.group)
            results.write()
        self.metrics.count_skipped(len(image_ids) - len(pending))
        return Report(
            images=len(image_ids),
            done=results.done,
            failed=results.failed,
            skipped=len(image_ids) - len(pending),
            seconds=time.perf_counter() - begun,
        )

    def nan_failure(self, image: Image) -> Failure:
        """The row of an image for which the model gives NaN."""
        return Failure(image.id, image.version, Reason.NAN, self.inferencer.nan)

    def save_heartbeat(self, connection: Connection) -> None:
        """Record that this worker is alive, and what it spends its time on."""
        worker_rows.save(connection, self.model.id, self.worker, self.metrics.recent())


class _Chunk:
    """Sends the images of one chunk through the stages. The thread of the chunk looks up hashes and writes results."""

    def __init__(self, pipeline: Pipeline, pending: Sequence[Image], results: "_Results") -> None:
        self.listener = Listener()
        self._pipeline = pipeline
        self._results = results
        self._to_fetch = deque(pending)
        self._fetching = 0
        self._fetched: list[Fetched] = []
        """Files whose hashes are to be looked up."""
        self._fetched_at = 0.0
        """When the first of them came."""
        self._decoding = 0
        self._inferring = 0
        self._bytes = 0
        """Bytes of files in memory or being fetched."""
        self._by_hash: dict[bytes, Result | list[Copy]] = {}
        """The result of each content, or the copies that wait for it."""

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Until all images are finished, or the worker has to stop."""
        while self._to_fetch or self._under_way:
            self._fetch_more()
            if self._is_time_to_look_up():
                self._look_up()
                continue
            self._wait()
            if should_stop():
                break
            self._results.write_if_due()

    def _wait(self) -> None:
        """Handle all events; if there is none, wait for one."""
        with suppress(Empty):
            events = self.listener.events.get(timeout=self._patience)
            while True:
                for event in events:
                    self._handle(event)
                events = self.listener.events.get_nowait()

    @property
    def _under_way(self) -> int:
        return self._fetching + len(self._fetched) + self._decoding + self._inferring

    @property
    def _patience(self) -> float:
        return LOOK_UP_SECONDS if self._fetched and not self._decoding else STOP_POLL_SECONDS

    def _fetch_more(self) -> None:
        share = self._pipeline.share
        if self._under_way > share.images - share.refill:
            return
        started: list[Image] = []
        while self._to_fetch and self._under_way + len(started) < share.images:
            expected = _expected_bytes(self._to_fetch[0])
            if self._bytes and self._bytes + expected > share.bytes:
                break
            self._bytes += expected
            started.append(self._to_fetch.popleft())
        if started:
            self._fetching += len(started)
            self._pipeline.device.expect(self.listener.group, len(started))
            self._pipeline.stages.fetch(self.listener, started)

    def _is_time_to_look_up(self) -> bool:
        if not self._fetched:
            return False
        if len(self._fetched) >= LOOK_UP_IMAGES or not self._fetching:
            return True
        return not self._decoding and time.monotonic() - self._fetched_at > LOOK_UP_SECONDS

    def _look_up(self) -> None:
        """Look up the hashes of fetched files. Only files of unknown content are decoded."""
        pipeline, fetched = self._pipeline, self._fetched
        self._fetched = []
        new = {one.sha256 for one in fetched} - self._by_hash.keys()
        with pipeline.database.read() as connection:
            stored = duplicates.stored_results(connection, pipeline.model.id, list(new))
        self._by_hash.update(stored)
        to_decode: list[Fetched] = []
        for one in fetched:
            size, known = len(one.data), self._by_hash.get(one.sha256)
            if known is None:
                self._by_hash[one.sha256] = []
                to_decode.append(one)
                continue
            self._bytes -= size
            copy = Copy(one.image, size)
            if isinstance(known, list):
                known.append(copy)
            else:
                self._results.add(copy, one.sha256, known, is_copy=True)
        self._decoding += len(to_decode)
        pipeline.device.expect(self.listener.group, len(to_decode) - len(fetched))
        pipeline.stages.decode(self.listener, to_decode)

    def _handle(self, event: Event) -> None:
        match event:
            case Fetched():
                if not self._fetched:
                    self._fetched_at = time.monotonic()
                self._fetching -= 1
                self._bytes += len(event.data) - _expected_bytes(event.image)
                self._fetched.append(event)
            case NotFetched():
                self._fetching -= 1
                self._bytes -= _expected_bytes(event.image)
                self._pipeline.device.expect(self.listener.group, -1)
                self._results.add_failure(event.failure)
            case Decoded():
                self._bytes -= event.size
                self._decoding -= 1
                self._inferring += 1
            case NotDecoded():
                self._bytes -= event.size
                self._decoding -= 1
                self._pipeline.device.expect(self.listener.group, -1)
                self._finish(Copy(event.image, event.size), event.sha256, event.failure)
            case Inferred(decoded, scores):
                self._inferring -= 1
                copy = Copy(decoded.image, decoded.size)
                if scores is None:
                    self._finish(copy, decoded.sha256, self._pipeline.nan_failure(decoded.image))
                else:
                    found = StoredResult(decoded.width, decoded.height, decoded.format, scores)
                    self._finish(copy, decoded.sha256, found)
            case _:
                raise event

    def _finish(self, first: Copy, sha256: bytes, found: Result) -> None:
        waiting = self._by_hash[sha256]
        self._by_hash[sha256] = found
        self._results.add(first, sha256, found, is_copy=False)
        for copy in waiting if isinstance(waiting, list) else ():
            self._results.add(copy, sha256, found, is_copy=True)


class _Results:
    """Results of one chunk, collected and written to the database."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.done = 0
        self.failed = 0
        self._pipeline = pipeline
        self._predictions: list[Prediction] = []
        self._failures: list[Failure] = []
        self._duplicates = 0
        self._written_at = time.monotonic()

    def add(self, one: Copy, sha256: bytes, found: Result, *, is_copy: bool) -> None:
        """Add the result of a content for one image that has it."""
        self._duplicates += is_copy
        if isinstance(found, Failure):
            self.add_failure(replace(found, image_id=one.image.id, image_version=one.image.version))
            return
        self._predictions.append(
            Prediction(
                image_id=one.image.id,
                image_version=one.image.version,
                file_bytes=one.size,
                width=found.width,
                height=found.height,
                format=found.format,
                sha256=sha256,
                scores=found.scores,
            )
        )

    def add_failure(self, failure: Failure) -> None:
        self._failures.append(failure)

    def write_if_due(self) -> None:
        """Write finished results, if the last write was long ago."""
        if time.monotonic() - self._written_at > WRITE_SECONDS and (self._predictions or self._failures):
            self.write()

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


def _expected_bytes(image: Image) -> int:
    return BYTES_UNKNOWN if image.bytes is None else image.bytes
