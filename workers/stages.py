"""The threads of a process that fetch and decode, for all of its chunks.

An image goes from queue to queue: to be fetched, to be decoded, to the device (`workers.inference.device_thread`). Each
step tells the image's chunk what became of it. What may be under way at once is up to the chunk (`workers.pipeline`).
"""

import contextvars
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

from db.errors import ImageError
from db.ledger.images import Image
from db.ledger.results import Failure
from db.ledger.workers import Stage
from db.scores import Scores
from workers.images.decode import Decoder
from workers.inference.device_thread import DeviceThread, Group, Outcome, Request
from workers.models.spec import ModelSpec
from workers.options import Options
from workers.storage.fetch import Fetcher
from workers.storage.roots import Roots
from workers.telemetry.metrics import WorkerMetrics

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fetched:
    """An image whose file is here."""

    image: Image
    data: bytes
    sha256: bytes


@dataclass(frozen=True, slots=True)
class NotFetched:
    """An image without a file, or whose file may not be read."""

    image: Image
    failure: Failure


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image waits for the device; its file is not in memory any more."""

    size: int
    """Bytes of the file."""


@dataclass(frozen=True, slots=True)
class NotDecoded:
    """An image whose file cannot be decoded, and is not in memory any more."""

    image: Image
    size: int
    """Bytes of the file."""
    sha256: bytes
    failure: Failure


@dataclass(frozen=True, slots=True)
class Inferred:
    """An image that went all the way."""

    image: Image
    size: int
    """Bytes of the file."""
    sha256: bytes
    width: int
    """Pixels of the original; so is the height."""
    height: int
    format: str
    scores: Scores | None
    """None: the model gives NaN for it."""


Event = Fetched | NotFetched | Decoded | NotDecoded | Inferred | Exception


class Listener:
    """A chunk as its images' steps see it."""

    def __init__(self) -> None:
        self.events: SimpleQueue[Event] = SimpleQueue()
        self.group = Group()
        self._context = contextvars.copy_context()
        """What logs of the chunk are bound to."""

    def run(self, function: Callable[["Listener", T], object], item: T) -> None:
        """A step of an image, unless the chunk has ended. Its error, if any, is an event."""
        if self.group.is_closed:
            return
        try:
            # A copy for each: one context cannot be entered by two threads at once.
            self._context.copy().run(function, self, item)
        except Exception as error:  # noqa: BLE001 - raised again by the chunk's own thread
            self.events.put(error)


class Stages:
    """Fetching waits for others and wants many threads; decoding computes and wants one a core."""

    def __init__(self, spec: ModelSpec, options: Options, metrics: WorkerMetrics, device: DeviceThread) -> None:
        self._metrics = metrics
        self._device = device
        self._fetcher = Fetcher(max_bytes=options.max_bytes, connections=options.fetchers, roots=Roots(options.roots))
        self._decoder = Decoder(spec, options.max_pixels, pixels_in_flight=options.max_pixels_in_flight)
        self._to_fetch: SimpleQueue[tuple[Listener, Image]] = SimpleQueue()
        self._to_decode: SimpleQueue[tuple[Listener, Fetched]] = SimpleQueue()
        for number in range(options.fetchers):
            _start(f"fetch-{number}", self._to_fetch, self._fetch)
        for number in range(options.decoders):
            _start(f"decode-{number}", self._to_decode, self._decode)

    def fetch(self, listener: Listener, image: Image) -> None:
        """The chunk gets `Fetched` or `NotFetched`."""
        self._to_fetch.put((listener, image))

    def decode(self, listener: Listener, fetched: Fetched) -> None:
        """The chunk gets `Decoded` and then `Inferred`; or `NotDecoded`."""
        self._to_decode.put((listener, fetched))

    def _fetch(self, listener: Listener, image: Image) -> None:
        with self._metrics.timed(Stage.FETCH):
            try:
                data = self._fetcher.fetch(image.uri)
            except ImageError as error:
                listener.events.put(NotFetched(image, _failure(image, error)))
                return
            fetched = Fetched(image, data, hashlib.sha256(data).digest())
        listener.events.put(fetched)

    def _decode(self, listener: Listener, fetched: Fetched) -> None:
        image, size, sha256 = fetched.image, len(fetched.data), fetched.sha256
        with self._metrics.timed(Stage.DECODE):
            try:
                decoded = self._decoder.decode(fetched.data)
            except ImageError as error:
                listener.events.put(NotDecoded(image, size, sha256, _failure(image, error)))
                return
        listener.events.put(Decoded(size))
        width, height, format_ = decoded.width, decoded.height, decoded.format

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, Exception):
                listener.events.put(outcome)
            else:
                listener.events.put(Inferred(image, size, sha256, width, height, format_, outcome))

        self._device.put(Request(decoded, listener.group, done))


def _failure(image: Image, error: ImageError) -> Failure:
    return Failure(image.id, image.version, error.reason, error.detail)


def _start(name: str, queue: "SimpleQueue[tuple[Listener, T]]", function: Callable[[Listener, T], object]) -> None:
    def serve() -> None:
        while True:
            listener, item = queue.get()
            listener.run(function, item)
            del listener, item  # or the last file would stay in memory until the next one comes

    # A daemon: a storage that hangs holds a call for minutes, and a worker that ends does not wait for it.
    threading.Thread(target=serve, name=name, daemon=True).start()
