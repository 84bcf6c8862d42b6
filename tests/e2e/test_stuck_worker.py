"""Workers that end by themselves because they are stuck or idle."""

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from db.names.uris import file_uri
from producer.queue import broker
from producer.storage.s3_client import s3_client
from tests.e2e.forked import Workers
from tests.e2e.ledger import Ledger
from tests.fixtures.command import Outcome, wait_until
from tests.fixtures.messages import a_message, junk_like, with_header

PHOTOS = 20
CHUNK_SIZE = 5
FOR_EVER = 1_000.0
ODD_HEADERS = [{"stamped_headers": 1}, {"chain": [{"task": "tagonce.tag", "args": [], "kwargs": {}, "options": {}}]}]
COMMANDS = {
    "shutdown": {},
    "add_consumer": {"queue": "theirs"},
    "pool_shrink": {"n": 2},
    "cancel_consumer": {"queue": "tag.1"},
}
"""Commands of Celery's remote control that would end a worker, or have it take no chunks or unvalidated messages."""


@pytest.fixture
def settings(redis_url: str, sqlite_url: str, timm_folder: Path) -> dict[str, str]:
    return {
        "TAGONCE_BROKER_URL": redis_url,
        "TAGONCE_DATABASE_URL": sqlite_url,
        "TAGONCE_MODEL": str(timm_folder),
        "TAGONCE_CHUNK_SIZE": str(CHUNK_SIZE),
        "TAGONCE_LEASE_SECONDS": "3",
    }


def test_a_stuck_worker_ends_and_another_one_does_its_chunks(
    tagonce: Callable[..., Outcome], workers: Workers, make_photos: Callable[..., list[Path]], settings: dict[str, str]
) -> None:
    """The log has the stack of each thread. The second worker ends when it is idle."""
    photos = make_photos(PHOTOS)
    rows = Ledger(settings["TAGONCE_DATABASE_URL"])
    stuck = workers.start(decode_seconds=FOR_EVER, TAGONCE_STALL_SECONDS="2", **settings)
    stuck.wait_until_ready()
    assert tagonce("enqueue", "photos", **settings).code == 0
    assert stuck.wait() == os.EX_SOFTWARE
    assert "this process is stuck and ends" in stuck.words()
    assert "slow_or_deadly" in stuck.words()
    assert rows.count() == 0

    second = workers.start("--max-idle", "4", TAGONCE_LOG_FORMAT="json", **settings)
    assert second.wait() == 0, second.words()
    assert rows.count() == len(photos)
    assert rows.deliveries() == 0
    events = [json.loads(line) for line in second.words().splitlines()]
    chunks = [event for event in events if event["event"] == "chunk done"]
    assert len({event["task"] for event in chunks}) == len(chunks) == PHOTOS / CHUNK_SIZE
    assert sum(event["done"] for event in chunks) == PHOTOS
    assert {event["model"] for event in chunks} == {chunks[0]["model"]}
    assert all(event["level"] and event["timestamp"] and event["logger"] for event in events)


def test_what_is_no_message_is_dropped_and_the_worker_goes_on(
    tagonce: Callable[..., Outcome],
    workers: Workers,
    make_photos: Callable[..., list[Path]],
    settings: dict[str, str],
    tmp_path: Path,
) -> None:
    """Entries that are not JSON, no message, or a message with other effects: none is run, and none ends the worker.

    Of the references in the database, it reads those below TAGONCE_ROOTS.
    """
    photos = make_photos(PHOTOS)
    outside = tmp_path / "elsewhere" / "a.jpg"
    outside.parent.mkdir()
    shutil.copy(photos[0], outside)
    rows = Ledger(settings["TAGONCE_DATABASE_URL"])
    worker = workers.start(TAGONCE_ROOTS=f"s3://b/p,{photos[0].parent}", **settings)
    worker.wait_until_ready()
    app, other = (broker.create_app(settings["TAGONCE_BROKER_URL"], model_id) for model_id in (1, 2))
    junk = junk_like(a_message(other, 2))
    # Celery ends a worker for the first of these, and sends a task for the second. Here they are messages like others,
    # for another model.
    junk += [json.dumps(with_header(a_message(other, 2), **odd)).encode() for odd in ODD_HEADERS]
    with broker._redis(app) as (client, _channel):
        client.lpush(broker.queue_name(1), *junk)
        wait_until(lambda: broker.depth(app, 1).waiting == 0)
    for command, arguments in COMMANDS.items():
        app.control.broadcast(command, arguments=arguments)
    assert tagonce("enqueue", "photos", "elsewhere", **settings).code == 0
    wait_until(lambda: rows.count() == len(photos) + 1)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0, worker.words()
    assert len(rows.predicted()) == len(photos)
    assert rows.failed() == {file_uri(str(outside)): "denied"}
    assert worker.words().count("dropped") == len(junk)
    assert broker.depth(app, 1).empty
    app.close()
    other.close()


def test_a_worker_whose_storage_hangs_can_be_stopped(
    tagonce: Callable[..., Outcome],
    workers: Workers,
    settings: dict[str, str],
    bucket: str,
    make_photos: Callable[..., list[Path]],
) -> None:
    """Otherwise it would wait for minutes and be killed, and the delivery of its chunk would be counted."""
    client = s3_client()
    for photo in make_photos(3):
        client.put_object(Bucket=bucket, Key=photo.name, Body=photo.read_bytes())
    client.close()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        worker = workers.start(TAGONCE_GRACE_SECONDS="0", AWS_ENDPOINT_URL_S3=endpoint, **settings)
        worker.wait_until_ready()
        assert tagonce("enqueue", f"s3://{bucket}/", **settings).code == 0
        rows = Ledger(settings["TAGONCE_DATABASE_URL"])
        wait_until(lambda: rows.deliveries() == 1)
        time.sleep(1)  # it asks
        worker.signal(signal.SIGTERM)
        assert worker.wait(20) == 0, worker.words()
        assert rows.deliveries() == 0
