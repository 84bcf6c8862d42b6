"""`tagonce worker` as a process that may be made to fail. `tests.fixtures.forked` starts it.

On request the decoder is slow, or dies on a marked image as a decoder in C may: no file is known to crash every version
of Pillow. Another mark makes the model fail. Files in the folder `omens` make SQLite full, or a worker die in a write.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests.fixtures import forked
from tests.fixtures.command import wait_until

POISON = b"this image kills the worker"
NAN = b"this image makes the model fail"
DISK_FULL, DEATH_AT_COMMIT, DEATH_AT_RESTORE = "disk-full", "death-at-commit", "death-at-restore"
BROKEN_DEVICE = "broken-device"
"""Files in `omens`. While the first exists, SQLite cannot allocate a page, its error of a full disk. The second kills
the next worker that commits, the third the next that acquires the lock for restoring expired leases; that worker
deletes the file. While the last exists, the model fails on everything."""
READY = "batches of"
"""Part of the line that a worker logs when its model is loaded."""
CONNECTED = "Connected to"
"""Part of the line that it logs when Celery runs and handles signals. Before, SIGTERM just ends it."""


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
        """Kill it and wait for its end: on a loaded machine it may look alive for a while."""
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

    def start(
        self, *arguments: str | Path, decode_seconds: float = 0.0, omens: Path | None = None, **environment: str
    ) -> Worker:
        """Run `tagonce worker ...`."""
        log = self._folder / f"worker-{len(self.all)}.log"
        whole = dict(os.environ) | environment
        process = forked.context().Process(
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
    forked.enter(folder, environment, (Path(os.devnull), log, log))
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
        obey(omens)
    sys.argv = ["tagonce", "worker", *arguments]
    main()


def fail_where_marked(omens: Path | None) -> None:
    """Make inference fail as if all scores of a batch were NaN."""
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


def obey(omens: Path) -> None:
    """Check the omens in every transaction of any database, and at the lock in Redis: kombu's is the only one."""
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
