"""tagonce from end to end, as commands: a folder into SQLite, S3 through Redis into PostgreSQL, several processes."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import services
from runs import Run, Setup, from_database, times
from sqlalchemy import select

from db.database import open_database
from db.ledger import workers
from db.ledger.workers import Work
from db.schema import models
from producer.queue import broker

READY = "batches of"
"""Part of the log line of a worker whose model is loaded."""
CHUNK = "64"
"""Images in a message, as of `tagonce tag`. With the usual 256, 500 images would be two messages, no steady state."""


def on_sqlite(setup: Setup, folder: Path) -> Run:
    """`tagonce tag`."""
    url = f"sqlite:///{folder}/tags.db"
    arguments = ["tag", str(setup.photos), "--model", setup.model, "--database", url, *setup.options]
    begun = time.time()
    # The log of the worker is a temporary file of the command.
    with running(arguments, folder, TMPDIR=str(folder)) as command:
        wait_until(
            command, folder, lambda: any(READY in log.read_text() for log in folder.glob("tagonce-worker-*.log"))
        )
        begun_work = time.time()
        command.wait()
    number, _first, last = times(url)
    return Run(complete(setup, number, folder) / (last - begun_work), last - begun, from_database(setup, url))


def on_servers(setup: Setup, folder: Path) -> Run:
    """`tagonce worker`, and `tagonce enqueue` when the worker is ready."""
    with (
        services.postgresql() as postgresql,
        services.redis() as redis,
        services.s3(setup.photos.parent) as s3,
    ):
        where = {
            "TAGONCE_MODEL": setup.model,
            "TAGONCE_DATABASE_URL": postgresql.url,
            "TAGONCE_BROKER_URL": redis.url,
        }
        begun = time.time()
        with running(["worker", *setup.options], folder, **where, **s3) as worker:
            wait_until(worker, folder, lambda: READY in log_of(folder))
            wait_until(worker, folder, lambda: broker.workers(broker.create_app(redis.url, 1)) != [])
            source = f"s3://{setup.photos.name}/"
            with running(["enqueue", source, "--chunk-size", CHUNK], folder, **where, **s3) as producer:
                producer.wait()
            wait_until(worker, folder, lambda: times(postgresql.url)[0] == len(setup.names), every=0.5)
            worker.terminate()
            worker.wait()
        number, first, last = times(postgresql.url)
        return Run(complete(setup, number, folder) / (last - first), last - begun, from_database(setup, postgresql.url))


@dataclass(frozen=True)
class Shared:
    """Measurements of worker processes that share a device."""

    images_per_second: float
    """From the first registered image to the last row."""
    cpu_seconds: float
    """Of all worker processes in that time, an image."""
    busy: list[float]
    """Share of each process's time in which the device computed its batches, 0 to 1."""


def on_one_device(setup: Setup, folder: Path, processes: int, busy: Callable[[], object]) -> Shared:
    """Worker processes of one device on a folder, and PostgreSQL or SQLite.

    Args:
        busy: called when the workers have their models and the work begins.
    """
    number = len(setup.names)
    with services.database(folder) as url, services.redis() as redis:
        where = {"TAGONCE_MODEL": setup.model, "TAGONCE_DATABASE_URL": url, "TAGONCE_BROKER_URL": redis.url}
        devices = ["--devices", ",".join([setup.device] * processes)]
        options = ["--batch-size", str(setup.batch_size), "--precision", setup.precision]
        with running(["worker", *devices, *options], folder, **where) as worker:
            wait_until(worker, folder, lambda: log_of(folder).count(READY) >= processes)
            app = broker.create_app(redis.url, 1)
            wait_until(worker, folder, lambda: len(broker.workers(app)) == processes)
            parent = psutil.Process(worker.pid)
            cpu = services.cpu_seconds(parent)
            busy()
            chunk = str(max(1, min(256, number // (8 * processes))))
            with running(["enqueue", str(setup.photos), "--chunk-size", chunk], folder, **where) as producer:
                producer.wait()
            wait_until(worker, folder, lambda: times(url)[0] == number, every=0.2)
            cpu = services.cpu_seconds(parent) - cpu
        _number, first, last = times(url)
        shares = [share for work in works(url) if (share := work.device_busy) is not None]
        return Shared(number / (last - first), cpu / number, shares)


def works(url: str) -> list[Work]:
    """What the workers of the only model say of their last minute."""
    database = open_database(url, create=False)
    with database.read() as connection:
        (model_id,) = connection.scalars(select(models.c.id))
        found = workers.seen_since(connection, model_id, datetime.now(UTC) - workers.LOOK_BACK)
    database.close()
    return [work for _worker, work in found]


@contextmanager
def running(arguments: list[str], folder: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a `tagonce` command with its output in a file, and with only these settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TAGONCE_", "AWS_"))}
    with (folder / "words").open("ab") as words:
        process = subprocess.Popen(
            [*services.TAGONCE, *arguments], cwd=folder, env=inherited | environment, stdout=words, stderr=words
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def wait_until(
    process: subprocess.Popen[bytes], folder: Path, condition: Callable[[], bool], every: float = 0.02
) -> None:
    """Check a condition every so many seconds until it is true; fail if the process ends before."""
    while not condition():
        if process.poll() is not None:
            raise SystemExit(f"tagonce ended too early:\n{log_of(folder)}")
        time.sleep(every)


def log_of(folder: Path) -> str:
    """The output of the commands in this folder."""
    return (folder / "words").read_text(errors="replace")


def complete(setup: Setup, number: int, folder: Path) -> int:
    """Check that all images have a prediction; returns their number."""
    if number != len(setup.names):
        raise SystemExit(f"{number} of {len(setup.names)} images have a prediction:\n{log_of(folder)}")
    return number
