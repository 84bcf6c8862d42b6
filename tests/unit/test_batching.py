"""Batches of images of several chunks, one thread for the device, and errors that reach only their own chunks."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from db.scores import Scores
from tests.fixtures.command import wait_until
from workers.images.decode import Decoded
from workers.inference import batching
from workers.inference.batching import DeviceThread, Group, Outcome, Request
from workers.inference.infer import Inferred
from workers.telemetry.metrics import WorkerMetrics

FORMATS = tuple(f"chunk-{number}" for number in range(8))
"""An image says in its format which chunk it is of."""


def image(name: str = "") -> Decoded:
    return Decoded(np.zeros((1, 1, 3), np.uint8), 1, 1, name)


@dataclass
class FakeLaunched:
    images: Sequence[Decoded]
    device: "FakeDevice"

    def is_done(self) -> bool:
        return self.device.go.is_set()


@dataclass
class FakeDevice:
    """In the place of `Inferencer`: it computes while `go` is set, and remembers its batches and threads."""

    batch_size: int = 4
    kind: str = "cpu"
    go: threading.Event = field(default_factory=threading.Event)
    batches: list[list[str]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    fails_for: str | None = None
    is_there: bool = True

    @property
    def device(self) -> torch.device:
        return torch.device(self.kind)

    def use_device(self) -> None:
        if not self.is_there:
            raise RuntimeError("no device")
        self.threads.add(threading.current_thread().name)

    def launch(self, images: Sequence[Decoded]) -> FakeLaunched:
        self.threads.add(threading.current_thread().name)
        self.batches.append([one.format for one in images])
        return FakeLaunched(images, self)

    def finish(self, launched: FakeLaunched) -> Inferred:
        self.go.wait()
        if any(one.format == self.fails_for for one in launched.images):
            raise RuntimeError(f"fails for {self.fails_for}")
        found: list[Scores | None] = [Scores(np.zeros(1, np.int16), np.full(1, 5, np.int16)) for _ in launched.images]
        return Inferred(found, 0.0)

    def scores(self, images: Sequence[Decoded]) -> Inferred:
        return self.finish(self.launch(images))


Start = Callable[..., tuple[FakeDevice, DeviceThread]]


@pytest.fixture
def start() -> Iterator[Start]:
    """A device, which is let go at the end of the test, and its thread."""
    made: list[FakeDevice] = []

    def start(**arguments: object) -> tuple[FakeDevice, DeviceThread]:
        device = FakeDevice(**arguments)  # type: ignore[arg-type]
        made.append(device)
        return device, DeviceThread(device, WorkerMetrics())  # type: ignore[arg-type]

    yield start
    for device in made:
        device.go.set()


def chunk() -> Group[list[Outcome]]:
    def done(found: Sequence[tuple[list[Outcome], Outcome]]) -> None:
        for outcomes, outcome in found:
            outcomes.append(outcome)

    return Group(done)


def put(thread: DeviceThread, group: Group[list[Outcome]], images: Sequence[Decoded]) -> list[Outcome]:
    """The list fills when they are inferred."""
    outcomes: list[Outcome] = []
    thread.put([Request(one, group, outcomes) for one in images])
    return outcomes


def test_eight_chunks_of_64_are_one_batch_of_512(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "FILL_SECONDS", 3600.0)
    device, thread = start(batch_size=512)
    device.go.set()
    groups = [chunk() for _ in FORMATS]
    for group in groups:
        thread.expect(group, 64)
    outcomes = [put(thread, group, [image(name)] * 64) for group, name in zip(groups, FORMATS, strict=True)]
    wait_until(lambda: all(len(found) == 64 for found in outcomes), every=0.01)
    assert [len(batch) for batch in device.batches] == [512]
    assert set(device.batches[0]) == set(FORMATS)
    assert device.threads == {"device"}


def test_an_image_does_not_wait_for_those_of_other_chunks_that_come_later(start: Start) -> None:
    """Its batch is launched when the device is idle and the next images do not come in time."""
    device, thread = start(batch_size=4)
    device.go.set()
    group, slow = chunk(), chunk()
    thread.expect(group, 1)
    thread.expect(slow, 3)
    assert wait_until_filled(put(thread, group, [image()]), 1)
    assert device.batches == [[""]]


def test_the_last_images_are_not_waited_for(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing more is expected: the rest goes at once, however long a batch may take to fill."""
    monkeypatch.setattr(batching, "FILL_SECONDS", 3600.0)
    device, thread = start(batch_size=4)
    device.go.set()
    group, broken, closed = chunk(), chunk(), chunk()
    for one, number in ((group, 2), (broken, 3), (closed, 3)):
        thread.expect(one, number)
    outcomes = put(thread, group, [image()] * 2)
    thread.expect(broken, -3)
    thread.close(closed)
    thread.expect(closed, -1)  # of a step that was under way: it counts no more
    assert wait_until_filled(outcomes, 2)
    assert device.batches == [["", ""]]
    assert thread._expected == 0


def test_batches_fill_while_the_device_is_busy(start: Start) -> None:
    """On a GPU a second batch waits behind the first one; a third one is not launched, and becomes full."""
    device, thread = start(batch_size=2, kind="cuda")
    group = chunk()
    thread.expect(group, 7)
    outcomes = put(thread, group, [image()] * 5)
    wait_until(lambda: len(device.batches) == 2, every=0.01)
    outcomes += put(thread, group, [image()] * 2)
    device.go.set()
    wait_until(lambda: len(device.batches) == 4, every=0.01)
    assert [len(batch) for batch in device.batches] == [2, 2, 2, 1]


def test_of_a_batch_that_fails_only_the_chunk_that_fails_alone_gets_the_error(start: Start) -> None:
    device, thread = start(batch_size=3, fails_for="bad")
    device.go.set()
    good, bad = chunk(), chunk()
    thread.expect(good, 2)
    thread.expect(bad, 1)
    fine = put(thread, good, [image("good")] * 2)
    broken = put(thread, bad, [image("bad")])
    assert wait_until_filled(fine, 2)
    assert wait_until_filled(broken, 1)
    assert device.batches == [["good", "good", "bad"], ["good", "good"], ["bad"]]
    assert all(isinstance(one, Scores) for one in fine)
    assert str(broken[0]) == "fails for bad"


def test_what_a_closed_chunk_left_is_dropped(start: Start) -> None:
    device, thread = start(batch_size=1, kind="cpu")
    stopped, other = chunk(), chunk()
    thread.expect(stopped, 3)
    outcomes = put(thread, stopped, [image("stopped")] * 2)
    wait_until(lambda: len(device.batches) == 1, every=0.01)
    thread.close(stopped)
    put(thread, stopped, [image("stopped")])
    thread.expect(other, 1)
    others = put(thread, other, [image("other")])
    device.go.set()
    assert wait_until_filled(others, 1)
    assert device.batches == [["stopped"], ["other"]]
    assert len(outcomes) <= 1


def test_functions_run_between_batches_and_raise_where_they_are_called(start: Start) -> None:
    device, thread = start()
    device.go.set()
    assert thread.call(lambda: threading.current_thread().name) == "device"
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 // 0)
    group = chunk()
    thread.expect(group, 1)
    assert wait_until_filled(put(thread, group, [image()]), 1)


def test_a_thread_that_ended_fails_what_comes(start: Start) -> None:
    """No chunk waits for it for ever."""
    _, thread = start(is_there=False)
    group = chunk()
    thread.expect(group, 2)
    outcomes = put(thread, group, [image()] * 2)
    assert wait_until_filled(outcomes, 2)
    assert [str(one) for one in outcomes] == ["no device"] * 2
    with pytest.raises(RuntimeError, match="no device"):
        thread.call(lambda: pytest.fail("there is no thread to run it in"))


def test_a_function_that_waits_for_a_thread_that_ends_is_not_waited_for(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test of the device, for example, after an error that CUDA reports when it is asked whether a batch is done."""
    breaks = threading.Event()

    def is_done(_launched: FakeLaunched) -> bool:
        if breaks.is_set():
            raise RuntimeError("illegal memory access")
        return False

    monkeypatch.setattr(FakeLaunched, "is_done", is_done)
    device, thread = start(kind="cuda")
    group = chunk()
    thread.expect(group, 1)
    outcomes = put(thread, group, [image()])
    wait_until(lambda: len(device.batches) == 1, every=0.01)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(thread.call, lambda: pytest.fail("the device is broken"))
        wait_until(lambda: len(thread._calls) == 1, every=0.01)
        breaks.set()
        assert str(waiting.exception(20)) == "illegal memory access"
    assert [str(one) for one in outcomes] == ["illegal memory access"]


def wait_until_filled(outcomes: list[Outcome], number: int) -> bool:
    wait_until(lambda: len(outcomes) == number, every=0.01)
    return True
