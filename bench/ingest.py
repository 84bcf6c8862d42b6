"""The write rate of the database: images/s of concurrent writers, with chunks as workers write them.

    python bench/ingest.py [--images 40000] [--writers 1,4,8] [--stores postgresql,rows,sqlite]

    postgresql  `db.ledger.results.save` on PostgreSQL: packed rows, and the facts of each file
    rows        the same scores as a row a tag in the same PostgreSQL, by COPY, with danbooru's three indexes
    sqlite      `db.ledger.results.save` on SQLite, which lets one write at a time

Rows are realistic: 191 tags an image (`bench/synthetic.py`), 256 registered images a transaction. Each writer is a
process; all start at once with their chunks ready, so that only writing is measured. CPU time an image is given for all
writers and for the server: on a machine where they share the cores, it shows the bottleneck.
"""

import argparse
import itertools
import multiprocessing
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import services
import synthetic
from rich.console import Console
from rich.table import Table
from sqlalchemy.engine import make_url

from db.arrays.batches import batched
from db.database import Database, open_database
from db.ledger import images as image_rows
from db.ledger.images import Reference
from db.ledger.results import Prediction, save
from db.scores import Scores

CHUNK = 256
READY_SECONDS, WRITE_SECONDS = 120, 600
_, FILE_BYTES, WIDTH, HEIGHT, FORMAT = synthetic.FACTS


@dataclass(frozen=True)
class Run:
    """Measurements of one number of writers."""

    images_per_second: float
    milliseconds: tuple[float, float]
    """A chunk's transaction: median and 95th percentile."""
    writer_cpu: float
    """Microseconds an image."""
    server_cpu: float | None
    """The same of PostgreSQL."""


def packed_writes(url: str, model_id: int, ids: Sequence[int], seed: int) -> list[Callable[[], None]]:
    """Chunk after chunk through `db.ledger.results.save`."""
    database = Database(url)
    predictions = [
        Prediction(image_id, synthetic.VERSION, FILE_BYTES, WIDTH, HEIGHT, FORMAT, uuid.uuid4().bytes * 2, scores)
        for image_id, scores in zip(ids, _scores(len(ids), seed), strict=True)
    ]

    def write(chunk: list[Prediction]) -> None:
        with database.write() as connection:
            save(connection, model_id, chunk, [])

    with database.read():
        pass  # connect before timing begins
    return [partial(write, chunk) for chunk in batched(predictions, CHUNK)]


def row_writes(url: str, _model_id: int, ids: Sequence[int], seed: int) -> list[Callable[[], None]]:
    """Chunk after chunk as (image, tag, score), ready to be sent."""
    connection = psycopg.connect(url, autocommit=True)

    def write(body: bytes) -> None:
        with connection.cursor().copy("copy ai_tags from stdin (format binary)") as copy:
            copy.write(body)

    bodies = []
    for chunk in batched(zip(ids, _scores(len(ids), seed), strict=True), CHUNK):
        images = np.repeat([image_id for image_id, _ in chunk], [len(scores) for _, scores in chunk])
        tag_ids = np.concatenate([scores.tag_ids for _, scores in chunk])
        bodies.append(synthetic.ai_tags_rows(images, tag_ids, np.concatenate([scores.scores for _, scores in chunk])))
    return [partial(write, body) for body in bodies]


def _scores(number: int, seed: int) -> Iterator[Scores]:
    for batch in synthetic.generate(number, seed):
        for _number, tag_ids, scores in batch.rows():
            yield Scores(tag_ids, scores)


WRITES = {"postgresql": packed_writes, "rows": row_writes, "sqlite": packed_writes}


def writer(store: str, url: str, model_id: int, ids: Sequence[int], seed: int, start: Barrier, results: Any) -> None:
    """One process: prepare all chunks, wait for the start, write, and report times and CPU."""
    writes = WRITES[store](url, model_id, ids, seed)
    start.wait(READY_SECONDS)
    begun, cpu, seconds = time.time(), time.process_time(), []
    for write in writes:
        before = time.perf_counter()
        write()
        seconds.append(time.perf_counter() - before)
    results.put((begun, time.time(), time.process_time() - cpu, seconds))


@contextmanager
def prepared(store: str, server: services.Server, folder: Path, images: int) -> Iterator[tuple[str, int, list[int]]]:
    """A new database with its images registered: its URL, the model's id, the images' ids."""
    if store == "sqlite":
        url = f"sqlite:///{folder / uuid.uuid4().hex}.db"
    else:
        name = f"b{uuid.uuid4().hex}"
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"create database {name}")
        url = server.url.replace("/postgres?", f"/{name}?")
    database = open_database(url)
    model = synthetic.register(database)
    ids: list[int] = []
    for numbers in batched(range(1, images + 1), 5_000):
        references = [Reference(synthetic.uri(number), synthetic.VERSION, FILE_BYTES) for number in numbers]
        with database.write() as connection:
            ids += image_rows.register(connection, references, model.id)
    database.close()
    if store == "rows":
        with psycopg.connect(url) as connection:
            synthetic.make_ai_tags(connection)
            synthetic.index_ai_tags(connection)
    yield url, model.id, ids
    if store == "sqlite":
        Path(make_url(url).database or "").unlink()
    else:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"drop database {make_url(url).database} with (force)")


def run(store: str, server: services.Server, folder: Path, images: int, writers: int) -> Run:
    """So many writers at once on a new database."""
    context = multiprocessing.get_context("spawn")
    with prepared(store, server, folder, images) as (url, model_id, ids):
        start, results = context.Barrier(writers + 1), context.Queue()
        # Consecutive ids, as in the chunks of workers.
        shares = [ids[len(ids) * n // writers : len(ids) * (n + 1) // writers] for n in range(writers)]
        processes = [
            context.Process(target=writer, args=(store, url, model_id, share, seed, start, results))
            for seed, share in enumerate(shares)
        ]
        for process in processes:
            process.start()
        start.wait(READY_SECONDS)
        before = services.cpu_seconds(server.process)
        reports = [results.get(timeout=WRITE_SECONDS) for _ in processes]
        server_cpu = services.cpu_seconds(server.process) - before
        for process in processes:
            process.join()
    begun, ended, cpu, seconds = zip(*reports, strict=True)
    chunks = np.array(list(itertools.chain.from_iterable(seconds)))
    return Run(
        images_per_second=images / (max(ended) - min(begun)),
        milliseconds=(float(np.median(chunks)) * 1000, float(np.quantile(chunks, 0.95)) * 1000),
        writer_cpu=sum(cpu) / images * 1e6,
        server_cpu=None if store == "sqlite" else server_cpu / images * 1e6,
    )


def main() -> None:
    """Every store with every number of writers, one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=40_000)
    parser.add_argument("--writers", default="1,4,8")
    parser.add_argument("--stores", default=",".join(WRITES))
    options = parser.parse_args()
    title = f"{options.images:,} images of 191 tags, {CHUNK} a transaction, on {os.cpu_count()} cores"
    table = Table("store", "writers", title=title, title_justify="left")
    for column in ("images/s", "chunk, median", "chunk, 95 %", "CPU of writers", "CPU of the server"):
        table.add_column(column, justify="right")
    with services.postgresql() as server, tempfile.TemporaryDirectory() as folder:
        for store in options.stores.split(","):
            for writers in map(int, options.writers.split(",")):
                found = run(store, server, Path(folder), options.images, writers)
                table.add_row(
                    store,
                    str(writers),
                    f"{found.images_per_second:,.0f}",
                    *(f"{value:,.1f} ms" for value in found.milliseconds),
                    f"{found.writer_cpu:,.0f} µs an image",
                    "" if found.server_cpu is None else f"{found.server_cpu:,.0f} µs an image",
                )
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
