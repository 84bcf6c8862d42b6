"""Objects that are deleted or replaced between listing and reading."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from producer.queue import broker
from producer.storage.s3_client import s3_client
from tests.e2e.forked import Workers
from tests.e2e.ledger import Ledger
from tests.e2e.reference import own_scores
from tests.fixtures.checkpoints import TAGS
from tests.fixtures.command import Outcome, wait_until

OBJECTS = 60
DELETED, REPLACED = range(10), range(10, 30)


def test_what_is_stored_is_what_the_object_was_and_the_next_listing_finds_the_rest(
    tagonce: Callable[..., Outcome],
    workers: Workers,
    make_photos: Callable[..., list[Path]],
    bucket: str,
    jtp2_folder: Path,
    redis_url: str,
    postgres_url: str,
) -> None:
    """The version is the ETag at the listing. A deleted object is `missing`. A replaced one is tagged with its new
    content, and, since its version differs, again after the next listing; then its scores are those of the new content.
    """
    settings = {
        "TAGONCE_BROKER_URL": redis_url,
        "TAGONCE_DATABASE_URL": postgres_url,
        "TAGONCE_MODEL": str(jtp2_folder),
        "TAGONCE_BATCH_SIZE": "1",  # so that the scores of an image do not depend on its neighbours
        "TAGONCE_FLOOR": "0",
        "TAGONCE_CHUNK_SIZE": "8",
        "TAGONCE_LEASE_SECONDS": "3",
    }
    rows, client = Ledger(postgres_url), s3_client()
    photos = [photo.read_bytes() for photo in make_photos(OBJECTS + len(REPLACED))]
    uris = [f"s3://{bucket}/{number:03}.jpg" for number in range(OBJECTS)]

    def put(number: int, body: bytes) -> None:
        client.put_object(Bucket=bucket, Key=f"{number:03}.jpg", Body=body)

    def listing() -> int:
        sent = tagonce("enqueue", f"s3://{bucket}/", "--model", jtp2_folder.name, "--json", **settings)
        assert sent.code == 0, sent.err
        number: int = sent.json["sent"]
        return number

    for number in range(OBJECTS):
        put(number, photos[number])
    first = workers.start(**settings)
    first.wait_until_ready()  # which registers the model
    first.process.kill()
    first.wait()
    assert listing() == OBJECTS
    for number in DELETED:
        client.delete_object(Bucket=bucket, Key=f"{number:03}.jpg")
    for number, body in zip(REPLACED, photos[OBJECTS:], strict=True):
        put(number, body)
    client.close()

    worker = workers.start(**settings)
    wait_until(lambda: rows.count() == OBJECTS)
    missing = dict.fromkeys((uris[number] for number in DELETED), "missing")
    assert rows.failed() == missing
    assert listing() == len(REPLACED)
    app = broker.create_app(redis_url, 1)
    wait_until(lambda: broker.depth(app, 1).empty and not rows.deliveries())
    app.close()
    assert worker.process.is_alive()
    assert rows.failed() == missing
    assert rows.finished() == uris
    stored = rows.scores(len(TAGS))
    for uri, scores in own_scores(jtp2_folder, uris[len(DELETED) :], chunk_size=8, batch_size=1).items():
        np.testing.assert_array_equal(stored[uri], scores, err_msg=uri)
    assert listing() == 0
