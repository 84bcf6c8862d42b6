"""Redis loses its data, or does not answer for a while: the database has the pending images, and workers wait."""

from collections.abc import Callable
from pathlib import Path

from db.names.uris import file_uri
from producer.queue import broker
from tests.e2e.forked import Workers
from tests.e2e.ledger import Ledger
from tests.fixtures.command import Outcome, wait_until
from tests.fixtures.servers import RedisServer

PHOTOS = 60
CHUNK_SIZE = 4


def test_the_queue_is_rebuilt_from_the_database_and_a_worker_outlives_redis(
    tagonce: Callable[..., Outcome],
    workers: Workers,
    make_photos: Callable[..., list[Path]],
    redis_server: RedisServer,
    postgres_url: str,
    timm_folder: Path,
) -> None:
    """FLUSHALL with everything queued, then `enqueue --pending`; meanwhile Redis is killed, and restarted with its
    append-only file after chunks were finished in between. The one worker continues and finishes all.
    """
    photos = make_photos(PHOTOS)
    settings = {
        "TAGONCE_BROKER_URL": redis_server.url,
        "TAGONCE_DATABASE_URL": postgres_url,
        "TAGONCE_CHUNK_SIZE": str(CHUNK_SIZE),
        "TAGONCE_LEASE_SECONDS": "3",
        "TAGONCE_DECODERS": "1",
    }
    rows = Ledger(postgres_url)
    worker = workers.start("--model", timm_folder, decode_seconds=0.1, **settings)
    worker.wait_until_ready()  # which registers the model
    worker.process.kill()
    worker.wait()

    sent = tagonce("enqueue", "photos", "--model", timm_folder.name, "--json", **settings)
    assert sent.code == 0, sent.err
    assert sent.json == {"seen": PHOTOS, "sent": PHOTOS}
    app = broker.create_app(redis_server.url, 1)
    assert broker.depth(app, 1).waiting == PHOTOS / CHUNK_SIZE
    reconcile = ("enqueue", "--pending", "--if-idle", "--model", timm_folder.name, "--json")
    assert tagonce(*reconcile, **settings).json == {"seen": 0, "sent": 0}  # all of it is on the queue
    with redis_server.client as client:
        client.flushall()
    assert tagonce(*reconcile, **settings).json == {"seen": PHOTOS, "sent": PHOTOS}
    assert broker.depth(app, 1).waiting == PHOTOS / CHUNK_SIZE

    worker = workers.start("--model", timm_folder, decode_seconds=0.1, **settings)
    wait_until(lambda: rows.count() > 0)
    redis_server.kill()
    finished = rows.count()
    wait_until(lambda: rows.count() >= finished + CHUNK_SIZE)  # chunks that cannot be acknowledged
    wait_until(lambda: "Cannot connect" in worker.words())
    redis_server.start()
    assert rows.count() < PHOTOS
    wait_until(lambda: rows.count() == PHOTOS, seconds=120)
    assert rows.finished() == [file_uri(str(photo)) for photo in photos]
    assert worker.process.is_alive()
    wait_until(lambda: broker.depth(app, 1).empty)
    wait_until(lambda: rows.deliveries() == 0)
    app.close()
