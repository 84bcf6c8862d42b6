"""A storm on SQLite: workers that die during a write, a lock of another program, a full disk."""

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from db.database import BUSY_TIMEOUT_MS
from db.names.uris import file_uri
from producer.queue import broker
from tests.e2e.forked import DEATH_AT_COMMIT, DISK_FULL, Workers
from tests.e2e.ledger import Ledger
from tests.e2e.reference import own_scores
from tests.e2e.storm import Crew, finish
from tests.fixtures.checkpoints import TAGS
from tests.fixtures.command import Outcome, wait_until
from tests.fixtures.photos import small_photos
from tests.fixtures.servers import RedisServer

CREW = 2
FEW, MANY = 300, 800
DECODE_SECONDS = 0.05
"""More than it takes, so that the work outlasts the storm."""
FINISH_SECONDS = 120.0
ENDS = {0, 1, -signal.SIGKILL}
"""Exit codes of workers: SIGTERM; disk full, or no Redis at the start; killed. A bug is 70."""
SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEEDS", "1 2 3 4 5 6 7 8 9 10").split()]


@dataclass
class Storm:
    """Failures of a database file that several workers write, and of the workers."""

    file: Path
    omens: Path
    redis: RedisServer
    crew: Crew
    rows: Ledger
    images: int
    chance: random.Random
    enqueue: Callable[..., None]

    def blow(self, rounds: int) -> list[str]:
        """Run all failures so many times, in random order. Returns those that happened while there was work."""
        kinds = [self.kill, self.kill_at_commit, self.terminate, self.lock, self.fill, self.restart_redis, self.flush]
        happened = []
        for kind in (kind for _ in range(rounds) for kind in self.chance.sample(kinds, len(kinds))):
            self.crew.tend()
            if self._at_work():
                kind()
                happened.append(kind.__name__)
            time.sleep(self.chance.uniform(0.2, 1))
        return happened

    def kill(self) -> None:
        self.chance.choice(self.crew.workers).kill()

    def kill_at_commit(self) -> None:
        """Kill the next worker that commits, and wait for its death."""
        omen = self.omens / DEATH_AT_COMMIT
        before = self.crew.ends[-signal.SIGKILL]
        omen.touch()
        self._wait_until(lambda: self.crew.ends[-signal.SIGKILL] > before)
        omen.unlink(missing_ok=True)

    def terminate(self) -> None:
        self.crew.terminate_one(self.chance)

    def lock(self, seconds: float = 2) -> None:
        """Another program holds the write lock."""
        with closing(sqlite3.connect(self.file, timeout=20, isolation_level=None)) as other:
            other.execute("begin exclusive")
            time.sleep(seconds)
            other.execute("rollback")

    def fill(self) -> None:
        """The disk is full until a worker has ended because of it."""
        omen = self.omens / DISK_FULL
        before = self.crew.ends[1]
        omen.touch()
        self._wait_until(lambda: self.crew.ends[1] > before)
        omen.unlink()

    def restart_redis(self) -> None:
        self.redis.kill()
        time.sleep(self.chance.uniform(0, 2))
        self.redis.start()

    def flush(self) -> None:
        with self.redis.client as client:
            client.flushall()
        self.enqueue("--pending")

    def _at_work(self) -> bool:
        return self.rows.count() < self.images

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        def tended() -> bool:
            self.crew.tend()
            return condition() or not self._at_work()

        wait_until(tended)


class Site:
    """Photographs with the scores of an undisturbed run, by uri, and what is needed to tag them."""

    def __init__(
        self,
        expected: dict[str, npt.NDArray[np.int16]],
        photos: Path,
        model: Path,
        redis: RedisServer,
        workers: Workers,
        tagonce: Callable[..., Outcome],
        folder: Path,
    ) -> None:
        self.redis = redis
        self.file = folder / "tags.db"
        self.omens = folder / "omens"
        self.omens.mkdir()
        self._expected, self._photos, self._model = expected, photos, model
        self._workers, self._tagonce = workers, tagonce
        self._settings = {
            "TAGONCE_BROKER_URL": redis.url,
            "TAGONCE_DATABASE_URL": f"sqlite:///{self.file}",
            "TAGONCE_MODEL": str(model),
            "TAGONCE_BATCH_SIZE": "1",  # so that the scores of an image do not depend on its neighbours
            "TAGONCE_FLOOR": "0",
            "TAGONCE_CHUNK_SIZE": "8",
            "TAGONCE_LEASE_SECONDS": "3",
            "TAGONCE_GRACE_SECONDS": "0.5",
            "TAGONCE_DECODERS": "1",
            "TAGONCE_CONCURRENCY": "2",
        }

    def enqueue(self, *what: str) -> None:
        sent = self._tagonce("enqueue", *what, "--model", self._model.name, **self._settings)
        assert sent.code == 0, sent.err

    def run(self, seed: int, events: Callable[[Storm], list[str]]) -> None:
        """Enqueue all, run the failures, let the workers finish, and check the result."""
        begun = time.monotonic()
        crew = Crew(
            lambda: self._workers.start(decode_seconds=DECODE_SECONDS, omens=self.omens, **self._settings), CREW
        )
        crew.workers[0].wait_until_ready()
        self.enqueue(str(self._photos))
        rows = Ledger(self._settings["TAGONCE_DATABASE_URL"])
        wait_until(lambda: rows.deliveries() > 0)
        size, chance = len(self._expected), random.Random(seed)
        storm = Storm(self.file, self.omens, self.redis, crew, rows, size, chance, self.enqueue)
        happened = events(storm)
        app = broker.create_app(self.redis.url, 1)
        lost = finish(crew, rows, app, size, lambda: self.enqueue("--pending", "--if-idle"), FINISH_SECONDS)
        crew.dismiss()
        assert broker.depth(app, 1).empty
        app.close()
        told = f"{dict(Counter(happened))}, ended with code {dict(crew.ends)}, {lost} times sent again"
        print(f"seed {seed} on SQLite: {told}, {time.monotonic() - begun:.0f} seconds")  # noqa: T201 - the table of `make chaos`
        assert rows.failed() == {}
        assert rows.finished() == sorted(self._expected)
        stored = rows.scores(len(TAGS))
        for uri, scores in self._expected.items():
            np.testing.assert_array_equal(stored[uri], scores, err_msg=uri)
        assert set(crew.ends) <= ENDS, crew.ends
        with closing(sqlite3.connect(self.file)) as connection:
            assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]


@pytest.fixture(scope="module")
def photos(
    request: pytest.FixtureRequest, jtp2_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, npt.NDArray[np.int16]]]:
    """Photographs, as many as the test says: the folder, and the scores of an undisturbed run by uri."""
    folder = tmp_path_factory.mktemp("chaos") / "photos"
    uris = [file_uri(str(path)) for path in small_photos(request.param, folder)]
    return folder, own_scores(jtp2_folder, uris, chunk_size=len(uris), batch_size=1)


@pytest.fixture
def site(
    photos: tuple[Path, dict[str, npt.NDArray[np.int16]]],
    redis_server: RedisServer,
    workers: Workers,
    tagonce: Callable[..., Outcome],
    jtp2_folder: Path,
    tmp_path: Path,
) -> Site:
    folder, expected = photos
    return Site(expected, folder, jtp2_folder, redis_server, workers, tagonce, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("photos", [FEW], indirect=True)
def test_a_storm_on_sqlite(site: Site) -> None:
    """A short one, with each kind once."""
    site.run(0, lambda storm: storm.blow(1))


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("photos", [MANY], indirect=True)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_long_storm_on_sqlite(site: Site, seed: int) -> None:
    site.run(seed, lambda storm: storm.blow(2))


@pytest.mark.chaos
@pytest.mark.parametrize("photos", [FEW], indirect=True)
def test_a_lock_that_outlasts_the_patience_of_sqlite(site: Site) -> None:
    """A backup, or a person in a shell, holds the lock for longer than a writer waits: then the chunk waits."""

    def lock(storm: Storm) -> list[str]:
        storm.lock(BUSY_TIMEOUT_MS / 1000 + 15)
        assert all(worker.process.is_alive() for worker in storm.crew.workers)
        assert any("waiting for a service, then trying again" in worker.words() for worker in storm.crew.workers)
        return ["lock"]

    site.run(0, lock)
