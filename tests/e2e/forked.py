"""`tagonce worker` in a process forked from one that has torch imported already: half a second instead of five.

What runs is `tagonce.cli.main` in a real process of its own; only the import is shared. On request the decoder is slow,
or dies on a marked image as a decoder in C may: there is no file that crashes the Pillow of the day for sure. Another
mark makes the model fail. Files in a folder of omens make SQLite full, or a worker die in the midst of a write.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests.fixtures.command import wait_until

POISON = b"this image kills the worker"
NAN = b"this image makes the model fail"
PRELOADED = (
    "tagonce.cli",
    "tagonce.from_settings",
    "workers.pipeline",
    "workers.queue.process",
    "celery.apps.worker",
    "psycopg",
)
DISK_FULL, DEATH_AT_COMMIT, DEATH_AT_RESTORE = "disk-full", "death-at-commit", "death-at-restore"
BROKEN_DEVICE = "broken-device"
"""Omens. While there is the first, SQLite finds no room for another page, which is its own error of a full disk. The
second one kills whoever is about to commit and takes it; the third one whoever has just got the lock under which
chunks are put back on the queue whose leases ran out. While there is the last one, the model fails on everything."""
READY = "batches of"
"""In the line that a worker logs when its model is loaded."""
CONNECTED = "Connected to"
"""In the line that it logs a moment later, when Celery runs and heeds signals. Before, SIGTERM just ends it."""


@dataclass(frozen=True)
class Worker:
    """A worker process that runs."""

    process: ForkServerProcess
    log: Path

    def words(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_until_ready(self) -> None:
        wait_until(lambda: READY in self.words() or not self.process.is_alive())
        assert READY in self.words(), self.words()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid or 0, number)

    def kill(self) -> None:
        """And wait until it is dead: on a loaded machine it looks alive for a while, and is asked for more."""
        self.process.kill()
        self.process.join()

    def wait(self, seconds: float = 60) -> int:
        """Its exit code, negative for the number of a signal."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still running after {seconds} s:\n{self.words()}"
        return self.process.exitcode


@contextmanager
def workers(folder: Path) -> "Iterator[Workers]":
    """Starts workers in a folder; those that still run at the end are killed."""
    started = Workers(folder)
    try:
        yield started
    finally:
        for worker in started.all:
            worker.process.kill()
            worker.process.join()


class Workers:
    """All that a test started."""

    def __init__(self, folder: Path) -> None:
        self.all: list[Worker] = []
        self._folder = folder
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOADED))

    def start(
        self, *arguments: str | Path, decode_seconds: float = 0.0, omens: Path | None = None, **environment: str
    ) -> Worker:
        """Run `tagonce worker ...`."""
        log = self._folder / f"worker-{len(self.all)}.log"
        whole = dict(os.environ) | environment
        process = self._context.Process(
            target=run, args=(self._folder, log, list(map(str, arguments)), whole, decode_seconds, omens), daemon=True
        )
        process.start()
        self.all.append(Worker(process, log))
        return self.all[-1]


def run(
    folder: Path,
    log: Path,
    arguments: list[str],
    environment: dict[str, str],
    decode_seconds: float,
    omens: Path | None = None,
) -> None:
    """What the process does. Exits with the command's own code."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    with log.open("wb") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    from tagonce.cli import main
    from workers.images.decode import Decoded, Decoder

    decode = Decoder.decode

    def slow_or_deadly(self: Decoder, data: bytes) -> Decoded:
        time.sleep(decode_seconds)
        if POISON in data:
            os.kill(os.getpid(), signal.SIGKILL)
        decoded = decode(self, data)
        return replace(decoded, format=NAN.decode()) if NAN in data else decoded

    Decoder.decode = slow_or_deadly
    fail_where_marked(omens)
    if omens:
        heed(omens)
    sys.argv = ["tagonce", "worker", *arguments]
    main()


def fail_where_marked(omens: Path | None) -> None:
    """As the model does when all scores of a batch are NaN."""
    from collections.abc import Sequence

    from db.errors import ModelError
    from workers.images.decode import Decoded
    from workers.inference.infer import Inferencer, Launched

    launch = Inferencer.launch

    def or_fail(self: Inferencer, images: Sequence[Decoded]) -> Launched:
        broken = omens and (omens / BROKEN_DEVICE).exists()
        if broken or any(image.format == NAN.decode() for image in images):
            raise ModelError("The model gives NaN.")
        return launch(self, images)

    Inferencer.launch = or_fail


def heed(omens: Path) -> None:
    """Before and after every transaction on any database, and at a lock in Redis: kombu's is the only one."""
    from redis.lock import Lock
    from sqlalchemy import Connection, Engine, event

    acquire = Lock.do_acquire

    def acquire_and_die(self: Lock, token: str) -> bool:
        acquired = bool(acquire(self, token))
        if acquired:
            with suppress(FileNotFoundError):
                (omens / DEATH_AT_RESTORE).unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return acquired

    Lock.do_acquire = acquire_and_die

    @event.listens_for(Engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.dialect.name == "sqlite":
            pages = 1 if (omens / DISK_FULL).exists() else 2**32 - 2  # never less than there are
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    @event.listens_for(Engine, "commit")
    def commit(_connection: Connection) -> None:
        with suppress(FileNotFoundError):
            (omens / DEATH_AT_COMMIT).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
