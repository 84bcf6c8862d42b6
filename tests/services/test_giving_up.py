"""A chunk that was delivered too often is split, even if something else fails meanwhile."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from db.database import Database
from db.errors import TransientError
from db.ledger import deliveries
from db.ledger.models import Model
from producer.queue.broker import create_app, depth
from producer.queue.chunks import Chunk
from workers.queue import process
from workers.queue.isolation import MAX_DELIVERIES, SPLIT
from workers.queue.process import Stop

IDS = list(range(1, 41))
OUTAGES = 5


def test_its_pieces_are_sent_once(
    database: Database, model: Model, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database fails several times between the sending and the end of the transaction."""
    monkeypatch.setattr(process, "RETRY_SECONDS", 0)
    outages = iter(range(OUTAGES))
    forget = deliveries.forget

    def forget_or_fail(*arguments: Any) -> None:
        if next(outages, None) is not None:
            raise TransientError("away")
        forget(*arguments)

    monkeypatch.setattr(deliveries, "forget", forget_or_fail)
    app = create_app(redis_url, model.id)
    pipeline, watchdog = (
        SimpleNamespace(database=database, save_heartbeat=lambda _: None),
        SimpleNamespace(note_progress=lambda: None),
    )
    tagger = process._Tagger(app, cast("Any", pipeline), Stop(), cast("Any", watchdog))
    with database.write() as connection:
        for _ in range(MAX_DELIVERIES):
            deliveries.count(connection, "x")
    tagger.tag(Chunk(model_id=model.id, image_ids=IDS), "x")
    assert depth(app, model.id).waiting == SPLIT
    with database.read() as connection:
        assert deliveries.current(connection, "x") == 0
    app.close()
