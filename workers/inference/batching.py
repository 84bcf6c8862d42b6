"""Puts batches together: the thread that owns the device fills them with images of all chunks, and keeps it busy.

Streams, cuBLAS handles, and the plans of cuDNN and of attention belong to the thread that made them, so there is one
thread, and it also runs the warm-up.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from db.ledger.workers import Stage
from db.scores import Scores
from workers.images.decode import Decoded
from workers.inference.infer import Inferencer, Launched
from workers.telemetry.metrics import WorkerMetrics

log = logging.getLogger(__name__)

IN_FLIGHT = 2
"""Batches on a GPU at once: one that is computed and one that waits behind it. A third would only hold memory."""
FILL_SECONDS = 0.25
"""How long an idle device waits for a batch to fill while images are on their way."""
POLL_SECONDS = 0.001
"""Between two looks at the device, while it computes one batch and the next one is not full."""

T = TypeVar("T")
Outcome = Scores | Exception | None
"""Scores; None if the model gives NaN; or the error of the batch, which was run again with this chunk alone."""


class Group(Generic[T]):
    """Images that fail together: those of one chunk.

    Args:
        done: called in the device's thread, once for each batch with images of the group, with (`Request.about`,
            outcome) of each. After `DeviceThread.close` it is called only for batches that were launched before.
    """

    def __init__(self, done: Callable[[Sequence[tuple[T, Outcome]]], object]) -> None:
        self.done = done
        self.expected = 0
        """Images that were announced and not yet put in."""
        self.is_closed = False
        """Its results are no longer needed."""


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """An image to be inferred."""

    image: Decoded
    group: Group[T]
    about: T
    """Goes back with the outcome."""
    arrived: float = field(default_factory=time.monotonic)


class DeviceThread:
    """Infers the images that other threads put in, in their order.

    A batch is launched when it is full. One that is not full is launched when the device is idle and no more images are
    expected, or none came in time.
    """

    def __init__(self, inferencer: Inferencer, metrics: WorkerMetrics) -> None:
        self._inferencer = inferencer
        self._metrics = metrics
        self._changed = threading.Condition()
        self._requests = deque[Request[Any]]()
        self._calls = deque[Callable[[], object]]()
        self._expected = 0
        self._in_flight = deque[tuple[list[Request[Any]], Launched]]()
        self._most_in_flight = IN_FLIGHT if inferencer.device.type == "cuda" else 1
        self._broken: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    def expect(self, group: Group[Any], images: int) -> None:
        """Announce images of a group, or take back an announcement with a negative number."""
        with self._changed:
            if not group.is_closed:
                group.expected += images
                self._expected += images
            if self._expected == 0:
                self._changed.notify_all()

    def put(self, requests: Sequence[Request[Any]]) -> None:
        """Put in images of one group that were announced."""
        group = requests[0].group
        with self._changed:
            if group.is_closed:
                return
            group.expected -= len(requests)
            self._expected -= len(requests)
            if self._broken is None:
                waiting, full = len(self._requests), self._inferencer.batch_size
                self._requests.extend(requests)
                if waiting == 0 or waiting < full <= len(self._requests) or self._expected == 0:
                    self._changed.notify_all()
        if self._broken is not None:
            _hand_back(requests, [self._broken] * len(requests))

    def close(self, group: Group[Any]) -> None:
        """Drop what the group has announced and put in. Its results are not needed."""
        with self._changed:
            group.is_closed = True
            self._expected -= group.expected
            if self._expected == 0:
                self._changed.notify_all()

    def call(self, function: Callable[[], T]) -> T:
        """Run a function in the device's thread, between two batches, and return what it returns.

        Raises what the function raises, or the error with which the thread ended.
        """
        future: Future[T] = Future()

        def run() -> None:
            if self._broken is not None:
                future.set_exception(self._broken)
                return
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - the caller raises it
                future.set_exception(error)

        with self._changed:
            is_broken = self._broken is not None
            if not is_broken:
                self._calls.append(run)
                self._changed.notify_all()
        if is_broken:
            run()
        return future.result()

    def _run(self) -> None:
        try:
            self._inferencer.use_device()
            self._serve()
        except Exception as error:
            log.exception("the device's thread ends")
            with self._changed:
                self._broken = error
                left = [*(one for batch, _ in self._in_flight for one in batch), *self._requests]
            _hand_back(left, [error] * len(left))
            while self._calls:
                self._calls.popleft()()  # raises the error where it was called

    def _serve(self) -> None:
        while True:
            batch = self._next_batch()
            if batch:
                self._launch(batch)
            elif self._calls:
                self._calls.popleft()()
            # With two in flight, or when the next batch is not full yet: take what is done.
            if self._in_flight and (len(self._in_flight) >= self._most_in_flight or self._in_flight[0][1].is_done()):
                self._finish(*self._in_flight.popleft())

    def _next_batch(self) -> list[Request[Any]]:
        """Wait until a batch can be launched or finished, or there is a function to call."""
        with self._changed:
            while True:
                if self._is_ready():
                    size = min(len(self._requests), self._inferencer.batch_size)
                    return [self._requests.popleft() for _ in range(size)]
                if self._in_flight:
                    if self._in_flight[0][1].is_done():
                        return []
                    self._changed.wait(POLL_SECONDS)
                elif self._calls:
                    return []
                elif self._requests:
                    self._changed.wait(max(0.0, self._requests[0].arrived + FILL_SECONDS - time.monotonic()))
                else:
                    self._changed.wait()

    def _is_ready(self) -> bool:
        if len(self._requests) >= self._inferencer.batch_size:
            return True
        if not self._requests or self._in_flight:
            return False
        return self._expected <= 0 or time.monotonic() - self._requests[0].arrived >= FILL_SECONDS

    def _launch(self, batch: list[Request[Any]]) -> None:
        wanted = [one for one in batch if not one.group.is_closed]
        if not wanted:
            return
        try:
            self._metrics.add(Stage.WAIT, time.monotonic() - wanted[-1].arrived, len(wanted))
            self._in_flight.append((wanted, self._inferencer.launch([one.image for one in wanted])))
        except Exception as error:  # noqa: BLE001 - each chunk gets its error
            self._fail(wanted, error)

    def _finish(self, batch: list[Request[Any]], launched: Launched) -> None:
        try:
            inferred = self._inferencer.finish(launched)
        except Exception as error:  # noqa: BLE001 - each chunk gets its error
            self._fail(batch, error)
            return
        self._metrics.add(Stage.INFER, inferred.device_seconds, len(batch))
        _hand_back(batch, inferred.scores)

    def _fail(self, batch: list[Request[Any]], error: Exception) -> None:
        """A batch of several chunks is run again, chunk by chunk, so that only the chunks that fail get an error."""
        groups: dict[Group[Any], list[Request[Any]]] = {}
        for one in batch:
            groups.setdefault(one.group, []).append(one)
        if len(groups) > 1:
            log.warning("a batch of %d chunks failed, each of them is run alone: %s", len(groups), error)
        for requests in groups.values():
            outcomes: Sequence[Outcome] = [error] * len(requests)
            if len(groups) > 1:
                try:
                    outcomes = self._inferencer.scores([one.image for one in requests]).scores
                except Exception as own:  # noqa: BLE001 - the chunk gets it
                    outcomes = [own] * len(requests)
            _hand_back(requests, outcomes)


def _hand_back(requests: Sequence[Request[Any]], outcomes: Sequence[Outcome]) -> None:
    """Each group gets its own together: to wake a chunk's thread for each image would cost more than all it does."""
    of_groups: dict[Group[Any], list[tuple[Any, Outcome]]] = {}
    for one, outcome in zip(requests, outcomes, strict=True):
        of_groups.setdefault(one.group, []).append((one.about, outcome))
    for group, found in of_groups.items():
        group.done(found)
