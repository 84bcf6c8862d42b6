"""The counters of a worker, and their endpoint for Prometheus."""

import socket
import threading
import time
import urllib.request
from collections.abc import Iterator

import pytest

from db.errors import BrokerError, Reason, SettingsError
from db.ledger.workers import Stage, together
from producer.queue.broker import Depth
from tests.fixtures.scrape import scraped
from workers.telemetry import metrics as metrics_module
from workers.telemetry.exporter import serving
from workers.telemetry.metrics import WorkerMetrics


def test_stages_are_added_up_from_all_threads() -> None:
    metrics = WorkerMetrics()

    def work() -> None:
        for _ in range(1_000):
            metrics.add(Stage.DECODE, 0.5, 2)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    totals = metrics.totals()
    assert (totals.seconds[Stage.DECODE], totals.images[Stage.DECODE]) == (2_000, 8_000)
    assert totals.seconds[Stage.FETCH] == 0


def test_a_stage_that_fails_took_its_time_too() -> None:
    metrics = WorkerMetrics()
    with pytest.raises(ValueError, match="x"), metrics.timed(Stage.FETCH, 1):
        raise ValueError("x")
    assert metrics.totals().images[Stage.FETCH] == 1


def test_chunks_side_by_side_are_active_once() -> None:
    metrics = WorkerMetrics()
    begun = time.monotonic()
    with metrics.active(), metrics.active():
        time.sleep(0.05)
        assert 0.04 < metrics.totals().active_seconds <= time.monotonic() - begun
    active = metrics.totals().active_seconds
    time.sleep(0.05)
    assert metrics.totals().active_seconds == active <= time.monotonic() - begun


def test_recent_forgets_what_is_older_than_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_000.0]
    monkeypatch.setattr(metrics_module.time, "monotonic", lambda: clock[0])
    metrics = WorkerMetrics()
    seen = []
    for _minute in range(4):
        metrics.add(Stage.INFER, 1.0, 10)
        clock[0] += 40
        seen.append(metrics.recent().images[Stage.INFER])
    assert seen == [10, 20, 20, 20]
    clock[0] += 10_000
    metrics.add(Stage.INFER, 1.0, 10)
    assert metrics.recent().images[Stage.INFER] == 10, "after a rest, what came after it"


def test_work_says_what_an_image_takes() -> None:
    metrics = WorkerMetrics()
    metrics.add(Stage.INFER, 2.0, 8)
    work = metrics.recent()
    assert work.seconds_an_image(Stage.INFER) == 0.25
    assert work.seconds_an_image(Stage.WRITE) is None
    assert work.device_busy is None
    both = together([work, work])
    assert (both.seconds[Stage.INFER], both.images[Stage.INFER]) == (4.0, 16)


@pytest.fixture
def depths() -> list[Depth]:
    """Answers of Redis; empty if it does not answer."""
    return [Depth(waiting=7, in_flight=3)]


@pytest.fixture
def port(depths: list[Depth]) -> Iterator[int]:
    """Of an endpoint with something to tell."""
    metrics = WorkerMetrics()
    metrics.add(Stage.FETCH, 1.5, 3)
    metrics.count_results({Reason.CORRUPT: 2}, duplicates=4)
    metrics.count_skipped(5)

    def depth() -> Depth:
        if not depths:
            raise BrokerError("away")
        return depths[0]

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    about = {"model": 'a "b"\n', "device": "cpu"}
    with serving(metrics, host="127.0.0.1", port=number, about=about, depth=depth):
        yield number


def test_prometheus_reads_all_of_it(port: int) -> None:
    found = scraped(port)
    assert found["tagonce_stage_seconds_total", "fetch"] == 1.5
    assert found["tagonce_stage_images_total", "fetch"] == 3
    assert found["tagonce_failures_total", "corrupt"] == 2
    assert found["tagonce_duplicates_total",] == 4
    assert found["tagonce_skipped_total",] == 5
    assert found["tagonce_queue_chunks", "waiting"] == 7
    assert found["tagonce_queue_chunks", "in_flight"] == 3
    assert found["tagonce_worker_info", "cpu", 'a "b"\n'] == 1
    assert ("tagonce_active_seconds_total",) in found


def test_without_redis_the_other_metrics_are_served(port: int, depths: list[Depth]) -> None:
    depths.clear()
    found = scraped(port)
    assert found["tagonce_stage_images_total", "fetch"] == 3
    assert not [name for name, *_ in found if name.startswith("tagonce_queue")]


def test_a_probe_is_answered_while_redis_is_away(port: int, depths: list[Depth]) -> None:
    """Without the metrics, which query Redis."""
    depths.clear()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
        assert (answer.status, answer.read()) == (200, b"ok\n")


def test_a_port_that_is_taken_is_an_error_with_its_number(port: int) -> None:
    second = serving(WorkerMetrics(), host="127.0.0.1", port=port, about={}, depth=lambda: Depth(0, 0))
    with pytest.raises(SettingsError, match=f"127.0.0.1:{port}: Address already in use.*TAGONCE_METRICS_PORT"), second:
        pytest.fail("it serves")
