"""A worker process whose model only sleeps, as a GPU would: the ends of its image path are made up, the rest is not."""

import logging
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import synthetic

import workers.load
import workers.pipeline
from db.database import open_database
from db.ledger.models import Model
from db.ledger.workers import Stage
from db.scores import Scores
from producer.queue import broker
from workers.images.decode import Decoded
from workers.inference.infer import Inferred
from workers.models.spec import ModelSpec
from workers.options import Options
from workers.queue.process import run_worker
from workers.telemetry.metrics import WorkerMetrics

BATCH = 64
DIFFERENT = 2_000
"""Synthetic images whose scores are given again and again."""
SPEC = ModelSpec(name="synthetic", family="timm", architecture="none", tags=(), weights=Path("none"), size=1)
_, _, WIDTH, HEIGHT, FORMAT = synthetic.FACTS
PIXEL = Decoded(np.zeros((1, 1, 3), np.uint8), WIDTH, HEIGHT, FORMAT)


@dataclass(frozen=True)
class Gpu:
    """What stands in for one."""

    images_per_second: float
    model: Model
    postgresql: str
    """URL."""
    redis: str
    """URL."""


@dataclass(frozen=True)
class Write:
    """One transaction with results."""

    ended_at: float
    seconds: float
    images: int


class Names:
    """In the place of the fetcher: a file is its own name, so no two are the same."""

    def __init__(self, **_options: object) -> None: ...

    def fetch(self, uri: str) -> bytes:
        return uri.encode()


class Pixels:
    """In the place of the decoder: every image is one pixel."""

    def __init__(self, *_arguments: object, **_options: object) -> None: ...

    def decode(self, _data: bytes) -> Decoded:
        return PIXEL


class Sleeper:
    """In the place of the network: a batch after the other, however many threads ask."""

    where = ("a GPU that sleeps", "fp32")
    images_per_second: float

    def __init__(self, *_arguments: object, **_options: object) -> None:
        rows = [row for batch in synthetic.generate(DIFFERENT) for row in batch.rows()]
        self._scores = cycle([Scores(tag_ids, scores) for _number, tag_ids, scores in rows])
        self._lock = threading.Lock()
        self._free_at = 0.0

    def scores(self, pixels: Sequence[Decoded]) -> Inferred:
        seconds = len(pixels) / self.images_per_second
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + seconds
            wait, found = self._free_at - now, list(islice(self._scores, len(pixels)))
        time.sleep(wait)
        return Inferred(found, wait - seconds, seconds)


class Recorder(WorkerMetrics):
    """Remembers every write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[Write] = []

    def add(self, stage: Stage, seconds: float, images: int) -> None:
        super().add(stage, seconds, images)
        if stage is Stage.WRITE:
            self.writes.append(Write(time.time(), seconds, images))


def work(gpu: Gpu, results: Connection) -> None:
    """Be a worker until SIGTERM, then send all writes."""
    logging.basicConfig(level=logging.WARNING)
    warnings.simplefilter("ignore")  # Celery's about root, from each of 32
    Sleeper.images_per_second = gpu.images_per_second
    workers.load.Fetcher = Names  # type: ignore[misc,assignment]
    workers.load.Decoder = Pixels  # type: ignore[misc,assignment]
    workers.pipeline.Inferencer = Sleeper  # type: ignore[misc,assignment]
    workers.pipeline.WorkerMetrics = Recorder  # type: ignore[misc]
    database = open_database(gpu.postgresql, create=False)
    options = Options(batch_size=BATCH)
    pipeline = workers.pipeline.Pipeline(database, gpu.model, SPEC, options)
    run_worker(broker.create_app(gpu.redis, gpu.model.id), pipeline, options)
    results.send(pipeline.metrics.writes)
    database.close()
