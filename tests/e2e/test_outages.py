"""Outages of the database, Redis or the storage for minutes: a worker waits, and finishes without a restart.

In the suite they last for seconds, in `make chaos` for two minutes.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from producer.queue import broker
from producer.storage.s3_client import s3_client
from tests.e2e.forked import Worker, Workers
from tests.e2e.ledger import Ledger
from tests.e2e.reference import own_scores
from tests.e2e.storm import DISK_FULL, ROOM_AGAIN, Crew
from tests.fixtures.checkpoints import TAGS
from tests.fixtures.command import Outcome, wait_until
from tests.fixtures.proxy import Proxy, proxy
from tests.fixtures.servers import PostgresServer, RedisServer
from tests.fixtures.unruly_s3 import UnrulyS3, unruly_s3

IMAGES = 64
"""Half of them in a folder, and half in a bucket."""
DECODE_SECONDS = 0.05
ASIDE = "aside"
"""Key to which the queue is moved while no worker is to find it."""
QUEUE = "tagonce:tag.1"
SHORT, LONG = 5, 120


class Site:
    """A queue, a database behind a network, a storage, and images that are registered and sent."""

    def __init__(
        self,
        redis: RedisServer,
        postgres: PostgresServer,
        network: Proxy,
        storage: UnrulyS3,
        workers: Workers,
        model: Path,
    ) -> None:
        self.redis, self.postgres, self.network, self.storage = redis, postgres, network, storage
        self.rows = Ledger(postgres.url)
        self._workers, self._model = workers, model
        self.settings = {
            "TAGONCE_BROKER_URL": redis.url,
            "TAGONCE_DATABASE_URL": f"postgresql://postgres@127.0.0.1:{network.port}/postgres",
            "TAGONCE_MODEL": str(model),
            "TAGONCE_BATCH_SIZE": "1",  # so that the scores of an image do not depend on its neighbours
            "TAGONCE_FLOOR": "0",
            "TAGONCE_CHUNK_SIZE": "4",
            "TAGONCE_LEASE_SECONDS": "3",
            "TAGONCE_DECODERS": "1",
            "TAGONCE_FETCHERS": "4",
        }

    def worker(self, **environment: str) -> Worker:
        elsewhere = {"AWS_ENDPOINT_URL_S3": self.storage.url}
        return self._workers.start(decode_seconds=DECODE_SECONDS, **self.settings, **elsewhere, **environment)

    def check(self) -> None:
        """Each image once, with the scores of an undisturbed run, and nothing on the queue."""
        app = broker.create_app(self.redis.url, 1)
        wait_until(lambda: self.rows.count() >= IMAGES, 120)
        wait_until(lambda: broker.depth(app, 1).empty and not self.rows.deliveries(), 60)
        app.close()
        uris = self.rows.uris()
        assert len(uris) == IMAGES
        assert self.rows.failed() == {}
        assert self.rows.finished() == sorted(uris)
        stored = self.rows.scores(len(TAGS))
        for uri, scores in own_scores(self._model, uris, chunk_size=IMAGES, batch_size=1).items():
            np.testing.assert_array_equal(stored[uri], scores, err_msg=uri)


@pytest.fixture
def site(
    redis_server: RedisServer,
    postgres_server: PostgresServer,
    bucket: str,
    s3_endpoint: str,
    workers: Workers,
    tagonce: Callable[..., Outcome],
    make_photos: Callable[..., list[Path]],
    jtp2_folder: Path,
) -> Iterator[Site]:
    """All chunks are queued, under another key."""
    client = s3_client()
    for photo in make_photos(IMAGES)[IMAGES // 2 :]:
        client.put_object(Bucket=bucket, Key=photo.name, Body=photo.read_bytes())
        photo.unlink()
    client.close()
    with proxy(postgres_server.socket) as network, unruly_s3(s3_endpoint, seed=1) as storage:
        made = Site(redis_server, postgres_server, network, storage, workers, jtp2_folder)
        first = made.worker()
        first.wait_until_ready()  # which registers the model
        first.process.kill()
        first.wait()
        sources = ("photos", f"s3://{bucket}/")
        assert tagonce("enqueue", *sources, "--model", jtp2_folder.name, **made.settings).code == 0
        with redis_server.client as queue:
            queue.rename(QUEUE, ASIDE)
        yield made


def give_back_the_queue(site: Site) -> None:
    with site.redis.client as client:
        client.rename(ASIDE, QUEUE)


def wait_until_working(site: Site) -> None:
    """Wait until some images are done and others are being processed."""
    give_back_the_queue(site)
    wait_until(lambda: 0 < site.rows.count() < IMAGES)


def dead_before_the_first_chunk(site: Site, seconds: float) -> None:
    site.postgres.stop(signal.SIGQUIT)
    give_back_the_queue(site)
    time.sleep(seconds)
    site.postgres.start()


def dies_during_work(site: Site, seconds: float) -> None:
    wait_until_working(site)
    site.postgres.stop(signal.SIGQUIT)
    time.sleep(seconds)
    site.postgres.start()


def freezes_during_work(site: Site, seconds: float) -> None:
    """No connection ends, no packet comes."""
    wait_until_working(site)
    site.network.freeze()
    time.sleep(seconds)
    site.network.thaw()


def storage_dies_during_work(site: Site, seconds: float) -> None:
    """It answers every request with 503."""
    wait_until_working(site)
    site.storage.away = True
    time.sleep(seconds)
    site.storage.away = False


def redis_dies_during_work(site: Site, seconds: float) -> None:
    wait_until_working(site)
    site.redis.kill()
    time.sleep(seconds)
    site.redis.start()


def redis_freezes_during_work(site: Site, seconds: float) -> None:
    """It accepts connections, but does not answer."""
    wait_until_working(site)
    site.redis.signal(signal.SIGSTOP)
    time.sleep(seconds)
    site.redis.signal(signal.SIGCONT)


@pytest.mark.long
def test_a_worker_left_alone_waits_and_finishes(site: Site) -> None:
    outlive(site, dead_before_the_first_chunk, SHORT)


@pytest.mark.chaos
@pytest.mark.timeout(LONG + 280)
@pytest.mark.parametrize(
    "outage",
    [
        dead_before_the_first_chunk,
        dies_during_work,
        freezes_during_work,
        redis_dies_during_work,
        redis_freezes_during_work,
        storage_dies_during_work,
    ],
    ids=lambda one: one.__name__,
)
def test_a_worker_left_alone_for_two_minutes(site: Site, outage: Callable[[Site, float], None]) -> None:
    outlive(site, outage, LONG)


def outlive(site: Site, outage: Callable[[Site, float], None], seconds: float) -> None:
    """The same process, from the beginning to SIGTERM."""
    worker = site.worker()
    worker.wait_until_ready()
    outage(site, seconds)
    site.check()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0, worker.words()


@pytest.mark.long
def test_connections_that_nobody_ends_are_ended_by_the_watchdog(site: Site) -> None:
    """Without any answer, not even a reset, the process ends itself, and the next one finishes."""
    crew = Crew(lambda: site.worker(TAGONCE_STALL_SECONDS="3"), 1)
    crew.workers[0].wait_until_ready()
    wait_until_working(site)
    assert site.network.forget() > 0
    wait_until(lambda: not crew.workers[0].process.is_alive())
    crew.tend()
    site.check()
    crew.dismiss()
    assert crew.ends == {os.EX_SOFTWARE: 1, 0: 1}


READ_ONLY = """
alter database postgres set default_transaction_read_only = on;
select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'tagonce'
"""
"""Like a primary that became a standby after a failover."""
WRITABLE = "begin read write; alter database postgres set default_transaction_read_only = off; commit"
NO_ROOM_AT_ALL = """
create trigger no_room before insert or update or delete on deliveries for each row execute function no_room();
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("refuse", "allow", "words"),
    [
        (DISK_FULL + NO_ROOM_AT_ALL, ROOM_AGAIN, "cannot be used: could not extend file"),
        (READ_ONLY, WRITABLE, "cannot be used: cannot execute"),
    ],
    ids=["disk full", "read-only"],
)
def test_a_database_that_takes_nothing_ends_the_worker_and_costs_no_chunk(
    site: Site, refuse: str, allow: str, words: str
) -> None:
    """Not even the count of a delivery can be removed. When the database accepts writes again, all is complete."""
    crew = Crew(site.worker, 1)
    (worker,) = crew.workers
    worker.wait_until_ready()
    wait_until_working(site)
    site.postgres.execute(refuse)
    assert worker.wait() == 1, worker.words()
    assert words in worker.words().splitlines()[-1]
    site.postgres.execute(allow)
    crew.tend()
    site.check()
    crew.dismiss()
    assert crew.ends == {1: 1, 0: 1}
