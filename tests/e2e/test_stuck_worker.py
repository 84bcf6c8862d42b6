"""Workers that end by themselves: stuck, or without work; and what they say meanwhile."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from producer import broker
from producer.references import file_uri
from tests.e2e.forked import Workers
from tests.e2e.ledger import Ledger
from tests.fixtures.command import Outcome, wait_until
from tests.fixtures.messages import a_message, junk_like

PHOTOS = 20
CHUNK_SIZE = 5
FOR_EVER = 1_000.0


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
    """The log shows where each thread stood. The second one goes when there is nothing left to do."""
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
    """Neither JSON nor a message, or a message for more than to tag: none of it is run, and none ends the worker.
    Of what the database lists, it reads what lies below TAGONCE_ROOTS.
    """
    photos = make_photos(PHOTOS)
    outside = tmp_path / "elsewhere" / "a.jpg"
    outside.parent.mkdir()
    shutil.copy(photos[0], outside)
    rows = Ledger(settings["TAGONCE_DATABASE_URL"])
    worker = workers.start("--max-idle", "8", TAGONCE_ROOTS=f"s3://b/p,{photos[0].parent}", **settings)
    worker.wait_until_ready()
    app, other = (broker.create_app(settings["TAGONCE_BROKER_URL"], model_id) for model_id in (1, 2))
    junk = junk_like(a_message(other, 2))
    with broker._redis(app) as (client, _channel):
        client.lpush(broker.queue_name(1), *junk)
        wait_until(lambda: broker.depth(app, 1).waiting == 0)
    assert tagonce("enqueue", "photos", "elsewhere", **settings).code == 0
    assert worker.wait() == 0, worker.words()
    assert len(rows.predicted()) == len(photos)
    assert rows.failed() == {file_uri(str(outside)): "denied"}
    assert worker.words().count("dropped") == len(junk)
    assert broker.depth(app, 1).empty
    app.close()
    other.close()
