"""The threads of a process that fetch and decode, for all of its chunks.

An image passes three queues: of files to fetch, of files to decode, of the device (`workers.inference.batching`).
After each step the image's chunk gets an event. The chunk limits how many of its images are in the stages
(`workers.pipeline`).
"""

import contextvars
import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from db.errors import ImageError
from db.ledger.images import Image
from db.ledger.results import Failure
from db.ledger.workers import Stage
from db.scores import Scores
from workers.images.decode import Decoder
from workers.inference.batching import DeviceThread, Group, Outcome, Request
from workers.models.spec import ModelSpec
from workers.options import Options
from workers.storage.fetch import Fetcher
from workers.storage.roots import Roots
from workers.telemetry.metrics import WorkerMetrics

TOGETHER = 16
"""Limit of images that a thread hands on together."""
TOGETHER_SECONDS = 0.002
"""After this time a thread hands on what it has. Handing on a small image alone takes longer than reading it."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fetched:
    """The file of an image was read."""

    image: Image
    data: bytes
    sha256: bytes


@dataclass(frozen=True, slots=True)
class NotFetched:
    """The file of an image does not exist or may not be read."""

    image: Image
    failure: Failure


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image was decoded and waits for the device. Its file is no longer in memory."""

    image: Image
    size: int
    """Bytes of the file."""
    sha256: bytes
    width: int
    """Pixels of the original; so is the height."""
    height: int
    format: str


@dataclass(frozen=True, slots=True)
class NotDecoded:
    """The file of an image cannot be decoded. It is no longer in memory."""

    image: Image
    size: int
    """Bytes of the file."""
    sha256: bytes
    failure: Failure


@dataclass(frozen=True, slots=True)
class Inferred:
    """An image has scores."""

    decoded: Decoded
    scores: Scores | None
    """None: the model gives NaN for it."""


Event = Fetched | NotFetched | Decoded | NotDecoded | Inferred | Exception


class Listener:
    """Receives the events of one chunk's images."""

    def __init__(self) -> None:
        self.events: SimpleQueue[Sequence[Event]] = SimpleQueue()
        self.group: Group[Decoded] = Group(self._inferred)
        self._context = contextvars.copy_context()
        """Fields of the log: id of the chunk, name of the model."""

    def run(self, function: Callable[[], object]) -> None:
        """Run a step, unless the chunk has ended. An error becomes an event."""
        if self.group.is_closed:
            return
        try:
            # A copy: one context cannot be entered by two threads at once.
            self._context.copy().run(function)
        except Exception as error:  # noqa: BLE001 - raised again by the chunk's own thread
            self.events.put([error])

    def _inferred(self, outcomes: Sequence[tuple[Decoded, Outcome]]) -> None:
        self.events.put(
            [outcome if isinstance(outcome, Exception) else Inferred(decoded, outcome) for decoded, outcome in outcomes]
        )


class Stages:
    """Threads that fetch, which mostly wait for the storage, and threads that decode, one per core."""

    def __init__(self, spec: ModelSpec, options: Options, metrics: WorkerMetrics, device: DeviceThread) -> None:
        self._metrics = metrics
        self._device = device
        self._fetcher = Fetcher(max_bytes=options.max_bytes, connections=options.fetchers, roots=Roots(options.roots))
        self._decoder = Decoder(spec, options.max_pixels, pixels_in_flight=options.max_pixels_in_flight)
        self._to_fetch = _Queue[Image]("fetch", options.fetchers, self._fetch)
        self._to_decode = _Queue[Fetched]("decode", options.decoders, self._decode)

    def fetch(self, listener: Listener, images: Iterable[Image]) -> None:
        """The chunk gets `Fetched` or `NotFetched` for each."""
        self._to_fetch.put(listener, images)

    def decode(self, listener: Listener, files: Iterable[Fetched]) -> None:
        """The chunk gets `Decoded` and then `Inferred` for each; or `NotDecoded`."""
        self._to_decode.put(listener, files)

    def _fetch(self, listener: Listener, images: Iterable[Image]) -> None:
        events: list[Event] = []
        with self._metrics.timed(Stage.FETCH, 0) as timed:
            for image in images:
                timed.images += 1
                try:
                    data = self._fetcher.fetch(image.uri)
                except ImageError as error:
                    events.append(NotFetched(image, _failure(image, error)))
                else:
                    events.append(Fetched(image, data, hashlib.sha256(data).digest()))
        listener.events.put(events)

    def _decode(self, listener: Listener, files: Iterable[Fetched]) -> None:
        events: list[Event] = []
        requests: list[Request[Decoded]] = []
        with self._metrics.timed(Stage.DECODE, 0) as timed:
            for file in files:
                timed.images += 1
                image, size = file.image, len(file.data)
                try:
                    pixels = self._decoder.decode(file.data)
                except ImageError as error:
                    events.append(NotDecoded(image, size, file.sha256, _failure(image, error)))
                else:
                    decoded = Decoded(image, size, file.sha256, pixels.width, pixels.height, pixels.format)
                    events.append(decoded)
                    requests.append(Request(pixels, listener.group, decoded))
        listener.events.put(events)
        if requests:
            self._device.put(requests)


def _failure(image: Image, error: ImageError) -> Failure:
    return Failure(image.id, image.version, error.reason, error.detail)


class _Queue(Generic[T]):
    """Items that wait for a step, and the threads that run it.

    A thread hands on several items together if they are quick and of one chunk.
    """

    def __init__(self, name: str, threads: int, step: Callable[[Listener, Iterable[T]], object]) -> None:
        self._waiting: SimpleQueue[tuple[Listener, T]] = SimpleQueue()
        self._step = step
        for number in range(threads):
            # A daemon: a storage that hangs holds a call for minutes, and a worker that ends does not wait for it.
            threading.Thread(target=self._serve, name=f"{name}-{number}", daemon=True).start()

    def put(self, listener: Listener, items: Iterable[T]) -> None:
        for item in items:
            self._waiting.put((listener, item))

    def _serve(self) -> None:
        following: tuple[Listener, T] | None = None
        while True:
            following = self._turn(*(following or self._waiting.get()))

    def _turn(self, listener: Listener, first: T) -> "tuple[Listener, T] | None":
        """Run the step for an item and those that follow it. Returns the item of another chunk that ended the group."""
        others: list[tuple[Listener, T]] = []
        listener.run(lambda: self._step(listener, self._taken(listener, first, others)))
        return others[0] if others else None

    def _taken(self, listener: Listener, first: T, others: list[tuple[Listener, T]]) -> Iterator[T]:
        ends = time.monotonic() + TOGETHER_SECONDS
        yield first
        for _ in range(TOGETHER - 1):
            if time.monotonic() > ends:
                return
            try:
                following, item = self._waiting.get_nowait()
            except Empty:
                return
            if following is not listener:
                others.append((following, item))
                return
            yield item
