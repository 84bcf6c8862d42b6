"""Workers that die, stop or get an image that kills them: nothing lost, duplicated or stuck."""

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from celery import Celery

from db.names.uris import file_uri
from producer.queue import broker
from tests.e2e.forked import BROKEN_DEVICE, DEATH_AT_RESTORE, NAN, POISON, Workers
from tests.e2e.ledger import Ledger
from tests.e2e.reference import own_scores
from tests.fixtures.checkpoints import TAGS
from tests.fixtures.command import Outcome, wait_until
from tests.fixtures.servers import RedisServer

PHOTOS = 64
CHUNK_SIZE = 8
MOST_DEATHS = 9
"""Three of the chunk, three of the image, since 8 images split into 8 pieces; and three when a message was lost."""

BACK_AFTER = 20
"""Seconds after which the chunks of dead workers are done, with a lease of three."""


@pytest.fixture
def settings(redis_url: str, postgres_url: str, jtp2_folder: Path) -> dict[str, str]:
    """Batches of one, so that an image's scores do not depend on its neighbours. A lease is as short as allowed."""
    return {
        "TAGONCE_BROKER_URL": redis_url,
        "TAGONCE_DATABASE_URL": postgres_url,
        "TAGONCE_MODEL": str(jtp2_folder),
        "TAGONCE_BATCH_SIZE": "1",
        "TAGONCE_FLOOR": "0",
        "TAGONCE_LEASE_SECONDS": "3",
        "TAGONCE_DECODERS": "1",
        "TAGONCE_CONCURRENCY": "2",
    }


def test_killed_and_stopped_workers_lose_nothing(
    tagonce: Callable[..., Outcome],
    workers: Workers,
    make_photos: Callable[..., list[Path]],
    settings: dict[str, str],
    jtp2_folder: Path,
) -> None:
    """SIGKILL for one, SIGTERM without grace for the next: a third finishes with the scores of an undisturbed run."""
    photos = make_photos(PHOTOS)
    rows = Ledger(settings["TAGONCE_DATABASE_URL"])
    killed = workers.start(decode_seconds=0.1, **settings)
    killed.wait_until_ready()
    enqueue(tagonce, "photos", jtp2_folder, settings)
    wait_until(lambda: rows.count() > 0)
    killed.signal(signal.SIGKILL)
    killed.wait()
    assert rows.count() < PHOTOS
    assert rows.deliveries() > 0

    stopped = workers.start(decode_seconds=0.2, TAGONCE_GRACE_SECONDS="0", **settings)
    done_before = rows.count()
    wait_until(lambda: rows.count() > done_before)
    time.sleep(0.5)  # two chunks end at about the same time; now the next two are being processed
    stopped.signal(signal.SIGTERM)
    assert stopped.wait() == 0, stopped.words()
    assert re.search(r"left=[1-9]", stopped.words())
    assert rows.count() < PHOTOS

    last = workers.start(**settings)
    try:
        wait_until(lambda: rows.count() == PHOTOS, 30)
    except TimeoutError:
        # kombu takes a message and notes that it did so in two steps (kombu#305): a kill between them loses it.
        assert tagonce("enqueue", "--pending", "--model", jtp2_folder.name, **settings).code == 0
        wait_until(lambda: rows.count() == PHOTOS)
    wait_until(lambda: rows.deliveries() == 0)
    assert rows.finished() == [file_uri(str(photo)) for photo in photos]
    assert rows.failed() == {}
    expected = own_scores(jtp2_folder, rows.uris(), chunk_size=PHOTOS, batch_size=1)
    stored = rows.scores(len(TAGS))
    for uri, scores in expected.items():
        np.testing.assert_array_equal(stored[uri], scores, err_msg=uri)
    last.signal(signal.SIGTERM)
    assert last.wait() == 0, last.words()


def test_the_image_that_kills_its_worker_is_recorded_and_its_neighbours_are_done(
    tagonce: Callable[..., Outcome],
    workers: Workers,
    make_photos: Callable[..., list[Path]],
    settings: dict[str, str],
    jtp2_folder: Path,
) -> None:
    """A chunk kills three workers, then it is split; the single image kills three, then it is recorded as crashed.

    Other images, of its chunk and of other chunks in the worker, are not blamed.
    """
    photos = make_photos(3 * CHUNK_SIZE)
    poison = photos[CHUNK_SIZE + 3]
    poison.write_bytes(poison.read_bytes() + POISON)
    rows = Ledger(settings["TAGONCE_DATABASE_URL"])
    worker = workers.start(**settings)
    worker.wait_until_ready()
    enqueue(tagonce, "photos", jtp2_folder, settings)
    app = broker.create_app(settings["TAGONCE_BROKER_URL"], 1)
    deaths = 0

    def running() -> bool:
        return worker.process.is_alive()

    while rows.count() < len(photos):
        wait_until(lambda: rows.count() == len(photos) or not running() or lost(app))
        if not running():
            assert worker.wait() == -signal.SIGKILL
            deaths += 1
            assert deaths <= MOST_DEATHS, worker.words()
            worker = workers.start(**settings)
        elif rows.count() < len(photos):
            assert tagonce("enqueue", "--pending", "--model", jtp2_folder.name, **settings).code == 0
    app.close()
    assert rows.failed() == {file_uri(str(poison)): "crashed"}
    assert rows.finished() == [file_uri(str(photo)) for photo in photos]
    assert "an image is recorded as crashed" in worker.words()
    wait_until(lambda: rows.deliveries() == 0)


def test_the_image_on_which_the_model_fails_is_recorded_and_the_worker_goes_on(
    tagonce: Callable[..., Outcome],
    workers: Workers,
    make_photos: Callable[..., list[Path]],
    settings: dict[str, str],
    jtp2_folder: Path,
) -> None:
    """With a single worker: the image does not end it, and the other images are done.

    It is the first of a chunk, so that no image before it shows that the model works.
    """
    photos = make_photos(3 * CHUNK_SIZE)
    poison = photos[CHUNK_SIZE]
    poison.write_bytes(poison.read_bytes() + NAN)
    rows = Ledger(settings["TAGONCE_DATABASE_URL"])
    worker = workers.start(**settings)
    worker.wait_until_ready()
    enqueue(tagonce, "photos", jtp2_folder, settings)
    wait_until(lambda: rows.count() == len(photos) or not worker.process.is_alive())
    assert worker.process.is_alive(), worker.words()
    assert rows.failed() == {file_uri(str(poison)): "crashed"}
    assert rows.finished() == [file_uri(str(photo)) for photo in photos]
    wait_until(lambda: rows.deliveries() == 0)


def test_a_model_that_fails_on_everything_ends_its_worker_and_blames_no_image(
    tagonce: Callable[..., Outcome],
    workers: Workers,
    make_photos: Callable[..., list[Path]],
    settings: dict[str, str],
    jtp2_folder: Path,
    tmp_path: Path,
) -> None:
    """During work, as a device does."""
    photos = make_photos(3 * CHUNK_SIZE)
    omens = tmp_path / "omens"
    omens.mkdir()
    rows = Ledger(settings["TAGONCE_DATABASE_URL"])
    worker = workers.start(decode_seconds=0.3, omens=omens, **settings)
    worker.wait_until_ready()
    enqueue(tagonce, "photos", jtp2_folder, settings)
    wait_until(lambda: rows.deliveries() > 0)
    (omens / BROKEN_DEVICE).touch()
    assert worker.wait() == 1, worker.words()
    assert "The model gives NaN" in worker.words()
    assert rows.failed() == {}
    assert rows.deliveries() == 0
    workers.start(**settings)
    wait_until(lambda: rows.count() == len(photos))
    assert rows.failed() == {}


def test_a_worker_that_dies_with_the_lock_of_restoring_delays_the_others_by_seconds(
    tagonce: Callable[..., Outcome],
    workers: Workers,
    make_photos: Callable[..., list[Path]],
    settings: dict[str, str],
    jtp2_folder: Path,
    redis_server: RedisServer,
    tmp_path: Path,
) -> None:
    """The lock in Redis under which kombu puts back what dead workers held lived five minutes, and so did the stall."""
    make_photos(2 * CHUNK_SIZE)
    omens = tmp_path / "omens"
    omens.mkdir()
    rows = Ledger(settings["TAGONCE_DATABASE_URL"])
    holder = workers.start(decode_seconds=1, **settings)
    holder.wait_until_ready()
    enqueue(tagonce, "photos", jtp2_folder, settings)
    app = broker.create_app(settings["TAGONCE_BROKER_URL"], 1)
    # All of it is held: what a dying worker takes off the queue may be lost, and this is not about that (kombu#305).
    wait_until(lambda: broker.depth(app, 1) == broker.Depth(waiting=0, in_flight=2) and rows.deliveries() == 2)
    app.close()
    holder.signal(signal.SIGKILL)
    holder.wait()
    (omens / DEATH_AT_RESTORE).touch()
    restorer = workers.start(omens=omens, **settings)
    assert restorer.wait() == -signal.SIGKILL
    with redis_server.client as client:
        assert client.pttl("tagonce:unacked_mutex") > 0
    workers.start(**settings)
    wait_until(lambda: rows.count() == 2 * CHUNK_SIZE, BACK_AFTER)
    wait_until(lambda: rows.deliveries() == 0)


def lost(app: Celery) -> bool:
    """Whether a message was lost: its worker died between taking and recording it, which kombu does not do atomically.

    `enqueue --pending` queues its images again.
    """
    if not broker.depth(app, 1).empty:
        return False
    time.sleep(1)
    return broker.depth(app, 1).empty


def enqueue(tagonce: Callable[..., Outcome], source: str, model: Path, settings: dict[str, str]) -> None:
    sent = tagonce("enqueue", source, "--model", model.name, "--chunk-size", CHUNK_SIZE, **settings)
    assert sent.code == 0, sent.err
