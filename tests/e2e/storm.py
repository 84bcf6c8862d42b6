"""Random failures of workers, Redis, PostgreSQL and S3, by a seed, for test_chaos.py."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from celery import Celery

from db.errors import BrokerError
from producer.queue import broker
from tests.e2e.forked import CONNECTED, Worker
from tests.e2e.ledger import Ledger
from tests.fixtures.proxy import Proxy
from tests.fixtures.servers import PostgresServer, RedisServer
from tests.fixtures.unruly_s3 import UnrulyS3

DISK_FULL = """
create function no_room() returns trigger language plpgsql as
$$ begin raise exception 'could not extend file: No space left on device' using errcode = 'disk_full'; end $$;
create trigger no_room before insert on predictions for each row execute function no_room();
"""
"""Makes PostgreSQL raise its error of a full disk. Filling a disk needs more rights."""
ROOM_AGAIN = "drop function if exists no_room cascade"

FULL = ("No space left on device", "disk is full")
"""Messages of PostgreSQL and SQLite for a full disk."""
TERM_SECONDS = 40.0
"""Seconds after SIGTERM in which a worker must return its chunks and end."""


class Crew:
    """Workers that are restarted whenever they end, as by Compose, Kubernetes or systemd.

    Args:
        start: starts one.
    """

    def __init__(self, start: Callable[[], Worker], size: int) -> None:
        self.ends: Counter[int] = Counter()
        """Exit codes: negative for signals, 1 if there was no database at the start, or its disk was full."""
        self._start = start
        self.workers = [start() for _ in range(size)]

    def tend(self) -> None:
        """Restart workers that have ended."""
        for place, worker in enumerate(self.workers):
            if not worker.process.is_alive():
                self.ends[worker.wait()] += 1
                self.workers[place] = self._start()

    def terminate_one(self, chance: random.Random) -> bool:
        """Send SIGTERM to one that has started, and check that it ends; False if there is none.

        Its exit code is 0, or 1 if it was about to end because the disk was full.
        """
        ready = [worker for worker in self.workers if worker.process.is_alive() and CONNECTED in worker.words()]
        if not ready:
            return False
        worker = chance.choice(ready)
        worker.signal(signal.SIGTERM)
        code = worker.wait(TERM_SECONDS)
        assert code == 0 or (code == 1 and any(full in worker.words() for full in FULL)), worker.words()
        return True

    def dismiss(self) -> None:
        """Send SIGTERM to all, and check that they end."""
        for worker in self.workers:
            if worker.process.is_alive():
                worker.signal(signal.SIGTERM)
        for worker in self.workers:
            self.ends[worker.wait(TERM_SECONDS)] += 1
        self.workers = []


@dataclass
class Storm:
    """The failures."""

    seed: int
    crew: Crew
    redis: RedisServer
    postgres: PostgresServer
    network: Proxy
    """Between workers and PostgreSQL."""
    s3: UnrulyS3
    app: Celery
    reconcile: Callable[[], None]
    """Queues lost images again, as from cron; called while no chunk is queued or held."""
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._events: dict[str, tuple[int, Callable[[], None]]] = {
            "worker killed": (8, self._kill),
            "worker terminated": (2, self._terminate),
            "redis restarted": (2, self._restart_redis),
            "redis flushed": (1, self._flush),
            "postgres restarted": (2, self._restart_postgres),
            "postgres cut off": (3, self._cut),
            "postgres frozen": (1, self._freeze),
            "backend terminated": (2, self._terminate_backend),
            "disk full": (1, self._fill_disk),
            "s3 failing": (2, self._fail_s3),
            "s3 away": (1, self._take_s3_away),
        }

    def blow(self, seconds: float) -> None:
        """One failure after the other, each followed by recovery. Every kind comes once before they are random."""
        until = time.monotonic() + seconds
        first = self._random.sample(list(self._events), len(self._events))
        weights = [weight for weight, _event in self._events.values()]
        while time.monotonic() < until:
            self.crew.tend()
            name = first.pop() if first else self._random.choices(list(self._events), weights)[0]
            self._events[name][1]()
            self.counts[name] += 1
            self._pause(0.2, 1.5)
            if is_idle(self.app):
                self.reconcile()
                self.counts["times sent again"] += 1

    def _pause(self, least: float, most: float) -> None:
        time.sleep(self._random.uniform(least, most))

    def _wait(self, least: float, most: float) -> None:
        """During an outage a worker may be killed too."""
        self._pause(least / 2, most / 2)
        if self._random.random() < 0.5:
            self._kill()
            self.counts["worker killed"] += 1
        self._pause(least / 2, most / 2)

    def _kill(self) -> None:
        self._random.choice(self.crew.workers).kill()

    def _terminate(self) -> None:
        self.crew.terminate_one(self._random)

    def _restart_redis(self) -> None:
        self.redis.kill()
        self._wait(0, 4)
        self.redis.start()

    def _flush(self) -> None:
        with self.redis.client as client:
            client.flushall()

    def _restart_postgres(self) -> None:
        self.postgres.stop(self._random.choice([signal.SIGINT, signal.SIGQUIT, signal.SIGKILL]))
        self._wait(0, 4)
        self.postgres.start()

    def _cut(self) -> None:
        for _ in range(5):
            self.network.cut()
            self._pause(0, 0.3)

    def _freeze(self) -> None:
        self.network.freeze()
        self._wait(1, 4)
        if self._random.random() < 0.5:
            self.network.cut()
        self.network.thaw()

    def _terminate_backend(self) -> None:
        for _ in range(5):
            self.postgres.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where application_name = 'tagonce' order by random() limit 1"
            )
            self._pause(0, 0.3)

    def _fill_disk(self) -> None:
        self.postgres.execute(DISK_FULL)
        self._pause(0.5, 2)
        self.postgres.execute(ROOM_AGAIN)

    def _fail_s3(self) -> None:
        self.s3.share = 0.4
        self._wait(1, 4)
        self.s3.share = 0.0

    def _take_s3_away(self) -> None:
        self.s3.away = True
        self._wait(1, 6)
        self.s3.away = False


def finish(crew: Crew, rows: Ledger, app: Celery, images: int, reconcile: Callable[[], None], seconds: float) -> int:
    """Wait until each image has a result and no delivery is counted. Returns how often images were queued again."""
    sent_again = quiet = 0
    until = time.monotonic() + seconds
    while rows.count() < images or rows.deliveries():
        words = "\n".join(worker.words()[-3_000:] for worker in crew.workers)
        assert time.monotonic() < until, f"{rows.count()} done, {rows.deliveries()} counted, {words}"
        crew.tend()
        quiet = quiet + 1 if is_idle(app) else 0
        if quiet > 3:
            sent_again += rows.count() < images
            reconcile()
            quiet = 0
        time.sleep(0.5)
    return sent_again


def is_idle(app: Celery) -> bool:
    """Whether no chunk is queued or held; False while Redis does not answer."""
    try:
        return broker.depth(app, 1).empty
    except BrokerError:
        return False
