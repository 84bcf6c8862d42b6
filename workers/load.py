"""Load: from rows of images to decoded pixels, a bounded number ahead of the device."""

import contextvars
import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

from db.database import Database
from db.errors import ImageError
from db.ledger import duplicates
from db.ledger.duplicates import StoredResult
from db.ledger.images import Image
from db.ledger.results import Failure
from db.ledger.workers import Stage
from workers.images.decode import Decoded, Decoder
from workers.models.spec import ModelSpec
from workers.options import Options
from workers.storage.fetch import Fetcher
from workers.storage.roots import Roots
from workers.telemetry.metrics import WorkerMetrics

AHEAD = 3
"""Batches of a chunk that are fetched ahead, and as many that are decoded ahead."""
BYTES_AHEAD = 64 * 1024 * 1024
"""Limit of the files of a chunk in each of three states: being fetched, waiting for deduplication, being decoded. No
other file enters a state at the limit, so memory is bounded for large files too."""
BYTES_UNKNOWN = 4 * 1024 * 1024
"""Assumed size of a file whose source gave none."""

STOP_POLL_SECONDS = 0.5
"""Interval of the check whether the worker stops: a storage that hangs can block a call for minutes."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class FetchedImage:
    """An image whose file was fetched."""

    image: Image
    data: bytes
    sha256: bytes


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image that is ready for inference, or needs none because its bytes are known."""

    image: Image
    size: int
    """Bytes of the file, encoded."""
    sha256: bytes
    content: Decoded | StoredResult | None
    """Pixels to infer; or the stored result of identical bytes; or None for a duplicate within the chunk."""

    @property
    def pixels(self) -> Decoded | None:
        """Input of the device; None if inference is not needed."""
        return self.content if isinstance(self.content, Decoded) else None


@dataclass(frozen=True, slots=True)
class FailedImage:
    """An image that cannot be fetched or decoded."""

    failure: Failure
    sha256: bytes | None = None
    """Of the file; None if it could not be fetched."""


class Loader:
    """Fetches and decodes for all chunks of a process.

    There are two thread pools: fetching waits and needs many threads, decoding computes and needs one a core.

    Args:
        model_id: the model whose stored results of identical bytes are reused.
    """

    def __init__(
        self, database: Database, model_id: int, spec: ModelSpec, options: Options, metrics: WorkerMetrics
    ) -> None:
        self._database = database
        self._model_id = model_id
        self._metrics = metrics
        self._batch_size = options.batch_size
        self._fetcher = Fetcher(max_bytes=options.max_bytes, connections=options.fetchers, roots=Roots(options.roots))
        self._decoder = Decoder(spec, options.max_pixels, pixels_in_flight=options.max_pixels_in_flight)
        self._fetchers = ThreadPoolExecutor(options.fetchers, thread_name_prefix="fetch")
        self._decoders = ThreadPoolExecutor(options.decoders, thread_name_prefix="decode")

    def batches(
        self, pending: Sequence[Image], should_stop: Callable[[], bool] = lambda: False
    ) -> Generator[list[LoadedImage | FailedImage]]:
        """All images in order, in lists with `batch_size` images to infer and any others between these.

        Images of the next `AHEAD` batches are fetched and decoded meanwhile. Ends early if `should_stop` returns true
        while it waits.
        """
        ahead = AHEAD * self._batch_size
        fetched = _in_order(self._fetchers, self._fetch, pending, ahead, _expected_bytes, should_stop)
        batch: list[LoadedImage | FailedImage] = []
        to_infer = 0
        for one in _in_order(
            self._decoders, self._decode, self._deduplicated(fetched), ahead, _held_bytes, should_stop
        ):
            batch.append(one)
            to_infer += isinstance(one, LoadedImage) and one.pixels is not None
            if to_infer == self._batch_size:
                yield batch
                batch, to_infer = [], 0
        if batch:
            yield batch

    def _fetch(self, image: Image) -> FetchedImage | FailedImage:
        with self._metrics.timed(Stage.FETCH):
            try:
                data = self._fetcher.fetch(image.uri)
            except ImageError as error:
                return FailedImage(_failure(image, error))
            return FetchedImage(image, data, hashlib.sha256(data).digest())

    def _deduplicated(
        self, fetched: Iterator[FetchedImage | FailedImage]
    ) -> Iterator[FetchedImage | LoadedImage | FailedImage]:
        """Skip decoding of bytes that occurred before in the chunk or that have a stored result."""
        seen: set[bytes] = set()
        for group in _groups(fetched, self._batch_size):
            new = {one.sha256 for one in group if isinstance(one, FetchedImage)} - seen
            with self._database.read() as connection:
                known = duplicates.stored_results(connection, self._model_id, list(new))
            for one in group:
                if isinstance(one, FailedImage):
                    yield one
                elif one.sha256 in seen:
                    yield LoadedImage(one.image, len(one.data), one.sha256, None)
                else:
                    seen.add(one.sha256)
                    content = known.get(one.sha256)
                    yield LoadedImage(one.image, len(one.data), one.sha256, content) if content else one

    def _decode(self, one: FetchedImage | LoadedImage | FailedImage) -> LoadedImage | FailedImage:
        if not isinstance(one, FetchedImage):
            return one
        with self._metrics.timed(Stage.DECODE):
            try:
                decoded = self._decoder.decode(one.data)
            except ImageError as error:
                return FailedImage(_failure(one.image, error), one.sha256)
        return LoadedImage(one.image, len(one.data), one.sha256, decoded)


def _failure(image: Image, error: ImageError) -> Failure:
    return Failure(image.id, image.version, error.reason, error.detail)


def _expected_bytes(image: Image) -> int:
    return BYTES_UNKNOWN if image.bytes is None else image.bytes


def _held_bytes(one: FetchedImage | LoadedImage | FailedImage) -> int:
    return len(one.data) if isinstance(one, FetchedImage) else 0


def _groups(fetched: Iterator[FetchedImage | FailedImage], size: int) -> Iterator[list[FetchedImage | FailedImage]]:
    group: list[FetchedImage | FailedImage] = []
    held = 0
    for one in fetched:
        group.append(one)
        held += _held_bytes(one)
        if len(group) == size or held >= BYTES_AHEAD:
            yield group
            group, held = [], 0
    if group:
        yield group


def _in_order(
    pool: ThreadPoolExecutor,
    function: Callable[[T], R],
    items: Iterable[T],
    ahead: int,
    weight: Callable[[T], int],
    should_stop: Callable[[], bool],
) -> Iterator[R]:
    """`map` over a pool, bounded: at most `ahead` results are in progress or not yet consumed.

    Args:
        weight: bytes of an item. No call starts while those in progress or not yet consumed have `BYTES_AHEAD`.
        should_stop: checked while waiting for a result; ends the iteration.

    Calls that have not started when the iteration ends are cancelled.
    """
    waiting = deque[tuple[Future[R], int]]()
    held = 0
    left = iter(items)
    try:
        while True:
            while len(waiting) < ahead and held < BYTES_AHEAD:
                try:
                    item = next(left)
                except StopIteration:
                    break
                # A copy of the context for each call, so that its log lines carry the variables bound to the chunk.
                future = pool.submit(contextvars.copy_context().run, function, item)
                waiting.append((future, weight(item)))
                held += waiting[-1][1]
            if not waiting:
                return
            future, weighs = waiting.popleft()
            while not future.done() and not wait([future], timeout=STOP_POLL_SECONDS).done:
                if should_stop():
                    return
            yield future.result()
            held -= weighs
    finally:
        for future, _ in waiting:
            future.cancel()
