"""Load: from rows of images to pixels that wait for the device, a bounded way ahead of it."""

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from db import copies
from db.batches import batched
from db.copies import Known
from db.database import Database
from db.errors import ImageError
from db.images import Image
from db.results import Failure
from db.workers import Stage
from workers.decode import Decoded, Decoder
from workers.fetch import Fetcher
from workers.metrics import Metrics
from workers.models.spec import ModelSpec
from workers.options import Options

AHEAD = 3
"""Batches of a chunk that are being fetched, and as many that are being decoded: what bounds the memory of both."""

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
    content: Decoded | Known | None
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

    def __init__(self, database: Database, model_id: int, spec: ModelSpec, options: Options, metrics: Metrics) -> None:
        self._database = database
        self._model_id = model_id
        self._metrics = metrics
        self._batch_size = options.batch_size
        self._fetcher = Fetcher(max_bytes=options.max_bytes, connections=options.fetchers)
        self._decoder = Decoder(spec, max_pixels=options.max_pixels)
        self._fetchers = ThreadPoolExecutor(options.fetchers, thread_name_prefix="fetch")
        self._decoders = ThreadPoolExecutor(options.decoders, thread_name_prefix="decode")

    def batches(self, pending: Sequence[Image]) -> Generator[list[Loaded | Broken]]:
        """Every image, in order. A list holds as much to infer as a batch does, and what comes in between.

        The next ones are fetched and decoded meanwhile, and no more of them than `AHEAD` says.
        """
        ahead = AHEAD * self._batch_size
        fetched = _in_order(self._fetchers, self._fetch, pending, ahead)
        batch: list[Loaded | Broken] = []
        to_infer = 0
        for one in _in_order(self._decoders, self._decode, self._recognised(fetched), ahead):
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
        for group in batched(fetched, self._batch_size):
            new = {one.sha256 for one in group if isinstance(one, Fetched)} - seen
            with self._database.read() as connection:
                known = copies.known(connection, self._model_id, list(new))
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


def _in_order(pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """`map` with at most so many calls begun and not yet taken. What has not begun is cancelled at the end."""
    waiting = deque[Future[R]]()
    left = iter(items)

    def submit(number: int) -> None:
        waiting.extend(pool.submit(function, item) for item in islice(left, number))

    try:
        submit(ahead)
        while waiting:
            result = waiting.popleft().result()
            submit(1)
            yield result
    finally:
        for future in waiting:
            future.cancel()
