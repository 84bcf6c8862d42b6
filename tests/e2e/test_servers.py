"""Producer and workers on PostgreSQL, Redis and S3, as on several machines."""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import redis

from producer.queue import broker
from tests.e2e.ledger import Ledger
from tests.fixtures.command import Outcome, Process, wait_until
from tests.fixtures.s3 import fill

OBJECTS = 400
BROKEN = 3
CHUNK_SIZE = 10


JUNK = 4


def put_objects(bucket: str, bodies: list[bytes]) -> list[str]:
    """Put small images, a few broken ones, a file that is no image, and an object elsewhere. Returns uris of images."""
    keys = {f"2024/{number:04}.jpg": bodies[number % len(bodies)] for number in range(OBJECTS)}
    for number in range(BROKEN):
        keys[f"2024/{number:04}.jpg"] = b"no image at all"
    fill(bucket, keys | {"2024/notes.txt": b"no image", "2023/other.jpg": bodies[0]})
    return [f"s3://{bucket}/{key}" for key in keys]


def test_two_workers_share_a_bucket_and_each_image_is_done_once(
    tagonce: Callable[..., Outcome],
    start_tagonce: Callable[..., Process],
    make_photos: Callable[..., list[Path]],
    bucket: str,
    jtp2_folder: Path,
    redis_url: str,
    postgres_url: str,
) -> None:
    """Other messages on the queue do not stop a worker; SIGTERM ends both with exit code 0."""
    settings = {"TAGONCE_BROKER_URL": redis_url, "TAGONCE_DATABASE_URL": postgres_url}
    rows = Ledger(postgres_url)
    workers = [start_tagonce("worker", "--model", jtp2_folder, **settings) for _ in range(2)]
    objects = put_objects(bucket, [photo.read_bytes() for photo in make_photos(40)])
    for worker in workers:
        worker.wait_for("batches of")
    send_junk(redis_url)

    source = ("enqueue", f"s3://{bucket}/2024", "--model", jtp2_folder.name, "--chunk-size", CHUNK_SIZE, "--json")
    sent = tagonce(*source, **settings)
    assert sent.code == 0, sent.err
    assert sent.json == {"seen": OBJECTS, "sent": OBJECTS}
    wait_until(lambda: rows.count() >= OBJECTS, seconds=180)
    wait_until(lambda: rows.deliveries() == 0)
    assert rows.finished() == objects
    assert rows.failed() == dict.fromkeys(objects[:BROKEN], "unsupported")
    shares = [sum(map(int, re.findall(r" done=(\d+)", worker.words()))) for worker in workers]
    assert sum(shares) == OBJECTS - BROKEN
    assert all(shares)
    assert sum(worker.words().count("dropped a message") for worker in workers) == JUNK

    status = tagonce("status", "--json", **settings).json
    assert (status["images"], status["done"], status["pending"]) == (OBJECTS, OBJECTS - BROKEN, 0)
    assert status["failed"] == {"unsupported": BROKEN}
    assert status["queue"] == {"waiting": 0, "in_flight": 0}
    assert len(status["workers"]) == 2
    shown = tagonce("status", **settings).out
    assert f" {OBJECTS - BROKEN} " in shown
    assert "not an image, or a format" in shown

    assert tagonce(*source, **settings).json == {"seen": OBJECTS, "sent": 0}
    for worker in workers:
        worker.signal(signal.SIGTERM)
    assert [worker.wait() for worker in workers] == [0, 0]
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys("tagonce:tag*") == client.keys("tagonce:unacked*") == []


def send_junk(redis_url: str) -> None:
    """Messages of Celery that are not chunks of model 1: other fields, another model, ids as text, another task."""
    app = broker.create_app(redis_url, 1)
    for kwargs in (
        {"path": "/etc/passwd"},
        {"model_id": 2, "image_ids": [1]},
        {"model_id": 1, "image_ids": ["1"]},
    ):
        app.send_task(broker.TASK_NAME, kwargs=kwargs)
    app.send_task("tagonce.unknown", kwargs={"model_id": 1, "image_ids": [1]})
    app.close()
