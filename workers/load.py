"""Load: from rows of images to pixels that wait for the device, a bounded way ahead of it."""

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
"""Batches of a chunk that are being fetched, and as many that are being decoded."""
BYTES_AHEAD = 64 * 1024 * 1024
"""Of the files of a chunk that are being fetched, that wait to be recognised, and that are being decoded, each: no more
are begun when it is that much, so that the memory of all three is bounded for large files, too."""
BYTES_UNKNOWN = 4 * 1024 * 1024
"""Taken for the size of a file that the source did not tell."""

STOP_POLL_SECONDS = 0.5
"""A storage that hangs holds a call for minutes; a worker that was told to stop does not wait for it."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Fetched:
    """An image whose file is here."""

    image: Image
    data: bytes
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image that has all it needs to be inferred, or that need not be."""

    image: Image
    size: int
    """Bytes of the file."""
    sha256: bytes
    content: Decoded | StoredResult | None
    """`Known`: these bytes have scores in the database. None: they came earlier in the same chunk."""

    @property
    def pixels(self) -> Decoded | None:
        """What the device has to see."""
        return self.content if isinstance(self.content, Decoded) else None


@dataclass(frozen=True, slots=True)
class Broken:
    """An image that cannot be fetched or decoded."""

    failure: Failure
    sha256: bytes | None = None
    """None where there are no bytes."""


class Loader:
    """Fetches and decodes for all chunks of a process.

    Two pools: fetching waits for others and wants many threads, decoding works and wants one a core.

    Args:
        model_id: whose scores of known bytes count.
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
    ) -> Generator[list[Loaded | Broken]]:
        """Every image, in order. A list holds as much to infer as a batch does, and what comes in between.

        The next ones are fetched and decoded meanwhile, and no more of them than `AHEAD` says.
        """
        ahead = AHEAD * self._batch_size
        fetched = _in_order(self._fetchers, self._fetch, pending, ahead, _expected_bytes, should_stop)
        batch: list[Loaded | Broken] = []
        to_infer = 0
        for one in _in_order(self._decoders, self._decode, self._recognised(fetched), ahead, _held_bytes, should_stop):
            batch.append(one)
            to_infer += isinstance(one, Loaded) and one.pixels is not None
            if to_infer == self._batch_size:
                yield batch
                batch, to_infer = [], 0
        if batch:
            yield batch

    def _fetch(self, image: Image) -> Fetched | Broken:
        with self._metrics.timed(Stage.FETCH):
            try:
                data = self._fetcher.fetch(image.uri)
            except ImageError as error:
                return Broken(_failure(image, error))
            return Fetched(image, data, hashlib.sha256(data).digest())

    def _recognised(self, fetched: Iterator[Fetched | Broken]) -> Iterator[Fetched | Loaded | Broken]:
        """Bytes that were seen before, in this chunk or ever, are not decoded again."""
        seen: set[bytes] = set()
        for group in _groups(fetched, self._batch_size):
            new = {one.sha256 for one in group if isinstance(one, Fetched)} - seen
            with self._database.read() as connection:
                known = duplicates.stored_results(connection, self._model_id, list(new))
            for one in group:
                if isinstance(one, Broken):
                    yield one
                elif one.sha256 in seen:
                    yield Loaded(one.image, len(one.data), one.sha256, None)
                else:
                    seen.add(one.sha256)
                    content = known.get(one.sha256)
                    yield Loaded(one.image, len(one.data), one.sha256, content) if content else one

    def _decode(self, one: Fetched | Loaded | Broken) -> Loaded | Broken:
        if not isinstance(one, Fetched):
            return one
        with self._metrics.timed(Stage.DECODE):
            try:
                decoded = self._decoder.decode(one.data)
            except ImageError as error:
                return Broken(_failure(one.image, error), one.sha256)
        return Loaded(one.image, len(one.data), one.sha256, decoded)


def _failure(image: Image, error: ImageError) -> Failure:
    return Failure(image.id, image.version, error.reason, error.detail)


def _expected_bytes(image: Image) -> int:
    return BYTES_UNKNOWN if image.bytes is None else image.bytes


def _held_bytes(one: Fetched | Loaded | Broken) -> int:
    return len(one.data) if isinstance(one, Fetched) else 0


def _groups(fetched: Iterator[Fetched | Broken], size: int) -> Iterator[list[Fetched | Broken]]:
    group: list[Fetched | Broken] = []
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
    """`map` with at most so many calls begun and not yet taken, and none begun while they weigh `BYTES_AHEAD`. What has
    not begun is cancelled at the end. It ends early where it is told to while it waits for a call.
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
                # A context of its own for each: what is bound to a chunk is in what its threads log.
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
