"""Nothing lost, duplicated or stuck: a run in which everything fails ends like an undisturbed one."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from db.names.uris import file_uri
from producer.queue import broker
from producer.storage.s3_client import s3_client
from tests.e2e.forked import Workers
from tests.e2e.ledger import Ledger
from tests.e2e.reference import own_scores
from tests.e2e.storm import Crew, Storm, finish
from tests.fixtures.checkpoints import TAGS
from tests.fixtures.command import Outcome
from tests.fixtures.photos import small_photos
from tests.fixtures.proxy import proxy
from tests.fixtures.s3 import new_bucket, point_at
from tests.fixtures.servers import PostgresServer, RedisServer
from tests.fixtures.unruly_s3 import unruly_s3

CHUNK_SIZE = 8
CREW = 3
FEW, MANY = 300, 3_000
SHORT, LONG = 25.0, 75.0
"""Seconds of the storm."""
DECODE_SECONDS = 0.05
"""More than it takes, so that the work outlasts the storm."""
FINISH_SECONDS = 240.0
BROKEN = 3
ENDS = {0, 1, -signal.SIGKILL, -signal.SIGTERM}
"""Exit codes of workers: SIGTERM; no database or Redis at the start, or disk full; killed; SIGTERM before the model was
loaded. A bug is 70.
"""
SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEEDS", "1 2 3 4 5 6 7 8 9 10").split()]


@dataclass(frozen=True)
class Collection:
    """Images in a bucket, a fifth of them in a folder, and three files that are not images."""

    folder: Path
    bucket: str
    expected: dict[str, npt.NDArray[np.int16]]
    """Scores of an undisturbed run, by uri."""
    broken: dict[str, str]
    """Expected reasons of failures, by uri."""

    @property
    def size(self) -> int:
        return len(self.expected) + len(self.broken)


@pytest.fixture(scope="module")
def collection(
    request: pytest.FixtureRequest, jtp2_folder: Path, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> Collection:
    """As many images as the test says."""
    number = request.param
    folder = tmp_path_factory.mktemp("chaos") / "photos"
    paths = small_photos(number, folder)
    for path in paths[:BROKEN]:
        path.write_bytes(b"no image")
    here, there = paths[: number // 5], paths[number // 5 :]
    with pytest.MonkeyPatch.context() as environment, ThreadPoolExecutor(8) as pool:
        point_at(s3_endpoint, environment)
        bucket = new_bucket()
        client = s3_client(max_pool_connections=8)
        list(pool.map(lambda path: client.put_object(Bucket=bucket, Key=path.name, Body=path.read_bytes()), there))
        client.close()
        uris = [file_uri(str(path)) for path in here] + [f"s3://{bucket}/{path.name}" for path in there]
        expected = own_scores(jtp2_folder, uris[BROKEN:], chunk_size=CHUNK_SIZE, batch_size=1)
    for path in there:
        path.unlink()
    return Collection(folder, bucket, expected, dict.fromkeys(uris[:BROKEN], "unsupported"))


@dataclass(frozen=True)
class Site:
    """The parts that fail."""

    redis: RedisServer
    postgres: PostgresServer
    workers: Workers
    command: Callable[..., Outcome]
    model: Path
    endpoint: str


@pytest.fixture
def site(
    redis_server: RedisServer,
    postgres_server: PostgresServer,
    workers: Workers,
    tagonce: Callable[..., Outcome],
    jtp2_folder: Path,
    s3_endpoint: str,
    s3_settings: None,
) -> Site:
    return Site(redis_server, postgres_server, workers, tagonce, jtp2_folder, s3_endpoint)


def run(site: Site, collection: Collection, seed: int, storm_seconds: float) -> Counter[str]:
    """Enqueue the collection, run the storm, let the workers finish, and check the result.

    Returns:
        Number of failures by kind.
    """
    begun = time.monotonic()
    with proxy(site.postgres.socket) as network, unruly_s3(site.endpoint, seed) as storage:
        settings = {
            "TAGONCE_BROKER_URL": site.redis.url,
            "TAGONCE_DATABASE_URL": f"postgresql://postgres@127.0.0.1:{network.port}/postgres",
            "TAGONCE_MODEL": str(site.model),
            # One by one, so that the scores of an image do not depend on its neighbours, to the last bit.
            "TAGONCE_BATCH_SIZE": "1",
            "TAGONCE_FLOOR": "0",
            "TAGONCE_LEASE_SECONDS": "3",
            "TAGONCE_GRACE_SECONDS": "0.5",
            "TAGONCE_CHUNK_SIZE": str(CHUNK_SIZE),
            "TAGONCE_DECODERS": "1",
            "TAGONCE_CONCURRENCY": "2",
            "TAGONCE_FETCHERS": "4",
        }
        elsewhere = {"AWS_ENDPOINT_URL_S3": storage.url}

        def enqueue(*what: str) -> None:
            sent = site.command("enqueue", *what, "--model", site.model.name, **settings)
            assert sent.code == 0, sent.err

        crew = Crew(lambda: site.workers.start(decode_seconds=DECODE_SECONDS, **settings, **elsewhere), CREW)
        crew.workers[0].wait_until_ready()  # which registers the model
        # What is in the bucket comes first, so that a storage that fails meets those that read from it.
        enqueue(f"s3://{collection.bucket}/", str(collection.folder))
        app = broker.create_app(site.redis.url, 1)

        def reconcile() -> None:
            enqueue("--pending", "--if-idle")

        storm = Storm(seed, crew, site.redis, site.postgres, network, storage, app, reconcile)
        storm.blow(storm_seconds)

        crew.dismiss()
        crew = Crew(lambda: site.workers.start(**settings, **elsewhere), CREW)
        rows = Ledger(site.postgres.url)
        storm.counts["done in the storm"] = rows.count()
        storm.counts["times sent again"] += finish(crew, rows, app, collection.size, reconcile, FINISH_SECONDS)
        crew.dismiss()
        assert broker.depth(app, 1).empty
        app.close()
    storm.counts.update({f"requests to s3: {fault}": number for fault, number in storage.faults.items()})
    storm.counts.update({f"ended with code {code}": number for code, number in storm.crew.ends.items()})
    storm.counts["seconds"] = round(time.monotonic() - begun)
    told = ", ".join(f"{number} {name}" for name, number in sorted(storm.counts.items()))
    print(f"seed {seed}: {told}")  # noqa: T201 - the table of `make chaos`

    assert rows.failed() == collection.broken
    assert rows.finished() == sorted([*collection.expected, *collection.broken])
    stored = rows.scores(len(TAGS))
    for uri, scores in collection.expected.items():
        np.testing.assert_array_equal(stored[uri], scores, err_msg=uri)
    assert set(storm.crew.ends) <= ENDS, storm.crew.ends
    return storm.counts


@pytest.mark.long
@pytest.mark.parametrize("collection", [FEW], indirect=True)
def test_a_storm(site: Site, collection: Collection) -> None:
    """A short one, with a failure of each kind."""
    run(site, collection, seed=0, storm_seconds=SHORT)


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("collection", [MANY], indirect=True)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_long_storm(site: Site, collection: Collection, seed: int) -> None:
    """Thousands of images, for minutes: `make chaos`."""
    run(site, collection, seed, storm_seconds=LONG)
