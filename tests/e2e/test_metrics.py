"""Metrics of a working worker, and the same figures in `tagonce status`."""

import socket
from collections.abc import Callable
from pathlib import Path

from tagonce import from_settings, settings
from tests.e2e.forked import Workers
from tests.e2e.ledger import Ledger
from tests.fixtures.command import Outcome, wait_until
from tests.fixtures.scrape import scraped


def test_stages_failures_duplicates_and_the_queue_are_counted(
    workers: Workers,
    invoke: Callable[..., Outcome],
    make_photos: Callable[..., list[Path]],
    jtp2_folder: Path,
    redis_url: str,
    postgres_url: str,
) -> None:
    photos = make_photos(20)
    photos[3].write_bytes(photos[3].read_bytes()[:100])
    photos[5].write_bytes(photos[4].read_bytes())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"TAGONCE_BROKER_URL": redis_url, "TAGONCE_DATABASE_URL": postgres_url}
    worker = workers.start("--model", jtp2_folder, "--metrics-port", port, **environment)
    wait_until(lambda: "metrics on" in worker.words())  # a moment after it is ready
    before = scraped(port)
    assert before["tagonce_queue_chunks", "waiting"] == 0
    assert before["tagonce_worker_info", "cpu", jtp2_folder.name, "float32"] == 1

    options = ("--broker", redis_url, "--database", postgres_url)
    sent = invoke("enqueue", str(photos[0].parent), "--model", jtp2_folder.name, *options)
    assert sent.code == 0, sent.err
    rows = Ledger(postgres_url)
    wait_until(lambda: rows.count() == 20)
    wait_until(lambda: scraped(port)["tagonce_queue_chunks", "in_flight"] == 0)
    after = scraped(port)
    assert after["tagonce_stage_images_total", "fetch"] == 20
    assert after["tagonce_stage_images_total", "decode"] == 19
    assert after["tagonce_stage_images_total", "infer"] == 18
    assert after["tagonce_stage_images_total", "write"] == 20
    assert after["tagonce_failures_total", "corrupt"] == 1
    assert after["tagonce_duplicates_total",] == 1
    assert 0 < after["tagonce_stage_seconds_total", "infer"] <= after["tagonce_active_seconds_total",]

    devices = invoke("status", "--json", *options).json["devices"]
    assert [one["device"] for one in devices] == ["cpu float32"]
    assert (devices[0]["images"]["infer"], devices[0]["duplicates"]) == (18, 1)


def test_scaled_decoding_is_a_model_of_its_own(jtp2_folder: Path, sqlite_url: str) -> None:
    """Its scores differ a little, so they are stored under another model id."""
    ids = []
    for scaled in (False, True, False):
        config = settings.load(database_url=sqlite_url, model=str(jtp2_folder), dct_scaling=scaled)
        with from_settings.stored(config, create=True) as database:
            spec, model = from_settings.find_and_register(database, config)
        assert spec.dct_scaling == scaled
        ids.append(model.id)
    assert ids == [1, 2, 1]
