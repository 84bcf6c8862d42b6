"""The image path, from ids of rows to stored scores: fetch - decode - infer - write."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from db import images
from db.database import Database
from db.errors import ImageError
from db.images import Image
from db.models import Model
from db.results import Failure, Prediction, save
from db.scores import Scores
from workers.decode import Decoded, Decoder
from workers.fetch import Fetcher
from workers.infer import Inferencer
from workers.models.spec import ModelSpec
from workers.options import Options

WRITE_SECONDS = 5.0
"""A chunk that takes longer is written bit by bit: progress shows, and a crash costs seconds, not minutes."""

AHEAD = 3
"""Batches of a chunk that are loaded or being loaded: what bounds the memory of decoded images."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image that was fetched and decoded and waits for the device."""

    image: Image
    decoded: Decoded
    sha256: bytes
    size: int
    """Bytes of the file."""


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
    """One shared model, its loaders, and the database. Threads run chunks through it side by side.

    Args:
        model: the row that `spec` was registered as.
    """

    def __init__(self, database: Database, model: Model, spec: ModelSpec, options: Options) -> None:
        self.database = database
        self.model = model
        self.inferencer = Inferencer(spec, options, floor=model.floor)
        self._batch_size = options.batch_size
        self._fetcher = Fetcher(max_bytes=options.max_bytes, connections=options.loaders)
        self._decoder = Decoder(spec, max_pixels=options.max_pixels)
        self._loaders = ThreadPoolExecutor(options.loaders, thread_name_prefix="loader")

    def run(self, image_ids: Sequence[int], *, should_stop: Callable[[], bool] = lambda: False) -> Report:
        """Tag the images of one chunk that are still pending, and write the results: one transaction for a chunk
        of ordinary speed, one every few seconds for a slow one.

        What is finished when `should_stop` says so is written; the rest stays pending.

        Raises:
            TransientError: the database does not answer. What was written stays; the chunk can be run again.
        """
        begun = time.perf_counter()
        with self.database.read() as connection:
            pending = images.pending_among(connection, image_ids, self.model.id)
        results = _Results(self.database, self.model.id)
        for loaded, broken in self._load(pending):
            scores = self.inferencer.scores([one.decoded for one in loaded])
            results.add([_prediction(one, kept) for one, kept in zip(loaded, scores, strict=True)], broken)
            if should_stop():
                break
        results.write()
        return Report(
            images=len(image_ids),
            done=results.done,
            failed=results.failed,
            skipped=len(image_ids) - len(pending),
            seconds=time.perf_counter() - begun,
        )

    def _load(self, pending: Sequence[Image]) -> Iterator[tuple[list[Loaded], list[Failure]]]:
        """Batches in which every image is either loaded or a failure. The next ones load meanwhile, and no more."""
        waiting = deque[tuple[Image, Future[Loaded]]]()
        images_left = iter(pending)

        def submit(number: int) -> None:
            waiting.extend(
                (image, self._loaders.submit(self._load_one, image)) for image in islice(images_left, number)
            )

        submit(AHEAD * self._batch_size)
        try:
            while waiting:
                loaded: list[Loaded] = []
                broken: list[Failure] = []
                for _ in range(min(self._batch_size, len(waiting))):
                    _sort_in(*waiting.popleft(), loaded, broken)
                submit(self._batch_size)
                yield loaded, broken
        finally:
            for _image, future in waiting:
                future.cancel()

    def _load_one(self, image: Image) -> Loaded:
        data = self._fetcher.fetch(image.uri)
        return Loaded(image, self._decoder.decode(data), hashlib.sha256(data).digest(), len(data))


class _Results:
    """Results of one chunk on their way to the database."""

    def __init__(self, database: Database, model_id: int) -> None:
        self.done = 0
        self.failed = 0
        self._database = database
        self._model_id = model_id
        self._predictions: list[Prediction] = []
        self._failures: list[Failure] = []
        self._written_at = time.monotonic()

    def add(self, predictions: Sequence[Prediction], failures: Sequence[Failure]) -> None:
        self._predictions += predictions
        self._failures += failures
        if time.monotonic() - self._written_at > WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        with self._database.write() as connection:
            save(connection, self._model_id, self._predictions, self._failures)
        self.done += len(self._predictions)
        self.failed += len(self._failures)
        self._predictions, self._failures = [], []
        self._written_at = time.monotonic()


def _sort_in(image: Image, future: "Future[Loaded]", loaded: list[Loaded], broken: list[Failure]) -> None:
    try:
        loaded.append(future.result())
    except ImageError as error:
        broken.append(Failure(image.id, image.version, error.reason, error.detail))


def _prediction(one: Loaded, scores: Scores) -> Prediction:
    return Prediction(
        image_id=one.image.id,
        image_version=one.image.version,
        file_bytes=one.size,
        width=one.decoded.width,
        height=one.decoded.height,
        format=one.decoded.format,
        sha256=one.sha256,
        scores=scores,
    )
