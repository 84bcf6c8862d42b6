"""A database is brought forward by a newer program while a worker of this one runs."""

from pathlib import Path

from sqlalchemy import text

from db.database import open_database
from db.ledger import images, models
from producer.queue import broker, chunks
from producer.sources import references
from tests.e2e.forked import Workers
from tests.e2e.ledger import Ledger
from tests.fixtures.databases.restored import HEAD
from tests.fixtures.photos import MAKER
from tests.fixtures.servers import RedisServer


def test_a_worker_ends_at_its_next_chunk_and_leaves_that_to_a_newer_one(
    timm_folder: Path, make_photos: MAKER, redis_server: RedisServer, sqlite_url: str, workers: Workers
) -> None:
    photos = make_photos(5)[0].parent
    worker = workers.start("--model", timm_folder, "--broker", redis_server.url, "--database", sqlite_url)
    worker.wait_until_ready()
    database = open_database(sqlite_url)
    with database.write() as connection:
        model = models.latest(connection)
        ids = images.register(connection, references(str(photos)), model.id)
        connection.execute(text("update alembic_version set version_num = '9999'"))
    database.close()
    app = broker.create_app(redis_server.url, model.id)
    with chunks.sending(app, model.id, max_waiting=10) as sender:
        sender.send(ids)
    assert worker.wait() == 1
    assert worker.words().splitlines()[-1] == (
        f"error: The database was written by a newer tagonce (schema 9999; this one knows up to {HEAD}). Upgrade "
        "this program."
    )
    assert Ledger(sqlite_url).count() == Ledger(sqlite_url).deliveries() == 0
    assert broker.depth(app, model.id) == broker.Depth(waiting=1, in_flight=0)
