"""Serves the metrics of a worker to Prometheus over HTTP, and `/healthz` to probes.

tagonce_stage_seconds_total{stage}    time in fetch, decode, wait (for the device), infer, write
tagonce_stage_images_total{stage}     images that completed a stage; the rate of `write` is images/s
tagonce_failures_total{reason}
tagonce_duplicates_total              images with known bytes, which need no inference
tagonce_skipped_total                 images that were delivered again after they were done
tagonce_active_seconds_total          time with at least one chunk; `infer` by it is the busy share of the device
tagonce_queue_chunks{state}           waiting, in_flight: read from Redis at each scrape, absent if it does not answer
tagonce_worker_info{model,device,precision}

`/healthz` shows that the model is loaded and that the threads of this process run. It does not query Redis: a scrape
waits while Redis does not answer, and a probe must not restart the workers for that.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from db.errors import BrokerError, SettingsError
from producer.queue.broker import Depth
from workers.telemetry.metrics import WorkerMetrics

log = logging.getLogger(__name__)


@contextmanager
def serving(
    metrics: WorkerMetrics, *, host: str, port: int, about: Mapping[str, str], depth: Callable[[], Depth]
) -> Iterator[None]:
    """Answer scrapes and probes inside the block, from a thread. To be entered when the model is loaded.

    Args:
        about: labels of `tagonce_worker_info`.
        depth: reads the length of the queue from Redis; may raise BrokerError.

    Raises:
        SettingsError: the port is in use, or the host is not an address of this machine.
    """
    registry = CollectorRegistry()
    registry.register(_Collector(metrics, about, depth))
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise SettingsError(
            f"Metrics cannot be served on {host}:{port}: {error.strerror}. Set TAGONCE_METRICS_PORT (--metrics-port) "
            "to a free port, and TAGONCE_METRICS_HOST to an address of this machine."
        ) from error
    server.set_app(_with_health(make_wsgi_app(registry)))
    log.info("metrics on http://%s:%d/metrics", host, server.server_port)

    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _with_health(metrics: WSGIApplication) -> WSGIApplication:
    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/healthz":
            return metrics(environ, start_response)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok\n"]

    return answer


class _Collector(Collector):
    def __init__(self, metrics: WorkerMetrics, about: Mapping[str, str], depth: Callable[[], Depth]) -> None:
        self._metrics = metrics
        self._about = dict(about)
        self._depth = depth

    def collect(self) -> Iterable[Metric]:
        totals = self._metrics.totals()
        yield _counters("tagonce_stage_seconds", "Seconds of all threads in a stage.", "stage", totals.seconds.items())
        yield _counters("tagonce_stage_images", "Images that completed a stage.", "stage", totals.images.items())
        yield _counters("tagonce_failures", "Images that failed.", "reason", totals.failures.items())
        yield CounterMetricFamily("tagonce_duplicates", "Images with known bytes: no inference.", totals.duplicates)
        yield CounterMetricFamily("tagonce_skipped", "Images delivered again after they were done.", totals.skipped)
        yield CounterMetricFamily("tagonce_active_seconds", "Seconds with at least one chunk.", totals.active_seconds)
        yield InfoMetricFamily("tagonce_worker", "Model, device and precision.", self._about)
        try:
            depth = self._depth()
        except BrokerError as error:
            log.warning("metrics without the length of the queue: %s", error)
            return
        queue = GaugeMetricFamily("tagonce_queue_chunks", "Chunks in Redis.", labels=["state"])
        queue.add_metric(["waiting"], depth.waiting)
        queue.add_metric(["in_flight"], depth.in_flight)
        yield queue


def _counters(name: str, words: str, label: str, values: Iterable[tuple[str, float]]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, words, labels=[label])
    for value, number in sorted(values):
        family.add_metric([value], number)
    return family
