"""A worker process with a simulated GPU, which only sleeps, and simulated fetching and decoding. All else is real."""

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import synthetic
import torch

import workers.pipeline
import workers.stages
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
"""Synthetic images whose scores are used in a cycle."""
SPEC = ModelSpec(name="synthetic", family="timm", architecture="none", tags=(), weights=Path("none"), size=1)
_, _, WIDTH, HEIGHT, FORMAT = synthetic.FACTS
PIXEL = Decoded(np.zeros((1, 1, 3), np.uint8), WIDTH, HEIGHT, FORMAT)


@dataclass(frozen=True)
class Gpu:
    """Parameters of a simulated GPU and its worker."""

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


class UriFetcher:
    """Replaces the fetcher: the content of a file is its URI, so no two are identical."""

    def __init__(self, **_options: object) -> None: ...

    def fetch(self, uri: str) -> bytes:
        return uri.encode()


class Pixels:
    """Replaces the decoder: every image is one pixel."""

    def __init__(self, *_arguments: object, **_options: object) -> None: ...

    def decode(self, _data: bytes) -> Decoded:
        return PIXEL


@dataclass(frozen=True)
class Slept:
    """A batch that the model that sleeps has taken."""

    images: Sequence[Decoded]
    free_at: float

    def is_done(self) -> bool:
        return time.monotonic() >= self.free_at


class Sleeper:
    """In the place of the network: a batch after the other, as a GPU computes them."""

    where = ("a GPU that sleeps", "fp32")
    device = torch.device("cuda")
    batch_size = BATCH
    images_per_second: float

    def __init__(self, *_arguments: object, **_options: object) -> None:
        rows = [row for batch in synthetic.generate(DIFFERENT) for row in batch.rows()]
        self._scores = cycle([Scores(tag_ids, scores) for _number, tag_ids, scores in rows])
        self._free_at = 0.0

    def use_device(self) -> None: ...

    def launch(self, images: Sequence[Decoded]) -> Slept:
        self._free_at = max(time.monotonic(), self._free_at) + len(images) / self.images_per_second
        return Slept(images, self._free_at)

    def finish(self, slept: Slept) -> Inferred:
        time.sleep(max(0.0, slept.free_at - time.monotonic()))
        return Inferred(list(islice(self._scores, len(slept.images))), len(slept.images) / self.images_per_second)


class Recorder(WorkerMetrics):
    """Also records every write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[Write] = []

    def add(self, stage: Stage, seconds: float, images: int) -> None:
        super().add(stage, seconds, images)
        if stage is Stage.WRITE:
            self.writes.append(Write(time.time(), seconds, images))


def work(gpu: Gpu, results: Connection) -> None:
    """Run a worker until SIGTERM, then send its writes."""
    logging.basicConfig(level=logging.WARNING)
    warnings.simplefilter("ignore")  # Celery warns about root in each of 32 processes
    Sleeper.images_per_second = gpu.images_per_second
    workers.stages.Fetcher = UriFetcher  # type: ignore[misc,assignment]
    workers.stages.Decoder = Pixels  # type: ignore[misc,assignment]
    workers.pipeline.Inferencer = Sleeper  # type: ignore[misc,assignment]
    workers.pipeline.WorkerMetrics = Recorder  # type: ignore[misc]
    database = open_database(gpu.postgresql, create=False)
    options = Options(batch_size=BATCH)
    pipeline = workers.pipeline.Pipeline(database, gpu.model, SPEC, options)
    run_worker(broker.create_app(gpu.redis, gpu.model.id), pipeline, options)
    results.send(pipeline.metrics.writes)
    database.close()
