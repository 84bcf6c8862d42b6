"""Leases: a message that is held stays with its worker, one that nobody renews comes back."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from celery import Celery
from kombu import Connection

from db.errors import BrokerError
from producer.broker import Depth, create_app, depth, queue_name, release_all
from producer.chunks import sending
from tests.fixtures.command import wait_until
from tests.fixtures.servers import RedisServer
from workers.lease import Leases

LEASE_SECONDS = 3
NOTHING = 0.3
"""Seconds without a message after which a consumer looks for leases that ran out."""


class Consumer:
    """Takes messages as a worker does.

    Args:
        acknowledge: at once, so that nothing it took comes back.
    """

    def __init__(self, connection: Connection, *, acknowledge: bool) -> None:
        self.taken: list[list[int]] = []
        self.messages: list[Any] = []
        self._connection = connection
        self._acknowledge = acknowledge
        connection.default_channel.basic_consume(queue_name(1), no_ack=False, callback=self._take, consumer_tag="test")

    def _take(self, message: Any) -> None:
        _arguments, keywords, _embedded = message.decode()
        self.taken.append(keywords["image_ids"])
        self.messages.append(message)
        if self._acknowledge:
            message.ack()

    def look(self) -> None:
        """Take what there is, and let leases that ran out come back to the queue."""
        with suppress(TimeoutError):
            self._connection.drain_events(timeout=NOTHING)

    def take(self, number: int) -> list[list[int]]:
        """Wait until it has had so many chunks."""

        def enough() -> bool:
            self.look()
            return len(self.taken) >= number

        wait_until(enough, seconds=20, every=0)
        return self.taken


@pytest.fixture
def app(redis_url: str) -> Iterator[Celery]:
    made = create_app(redis_url, 1, lease_seconds=LEASE_SECONDS)
    yield made
    made.close()


@contextmanager
def consuming(app: Celery, *, acknowledge: bool = False) -> Iterator[Consumer]:
    with app.connection_for_read() as connection:
        yield Consumer(connection, acknowledge=acknowledge)


def send(app: Celery, *chunks: list[int]) -> None:
    with sending(app, 1, max_waiting=1_000) as sender:
        for ids in chunks:
            sender.send(ids)


def test_a_message_that_is_renewed_stays_and_one_that_is_not_comes_back(app: Celery) -> None:
    """For longer than a lease; when it is held no more, the first one comes back too."""
    send(app, [1], [2])
    with consuming(app) as first, consuming(app, acknowledge=True) as second:
        assert first.take(2) == [[1], [2]]
        with Leases(app).held(first.messages[0].delivery_tag):
            assert second.take(1) == [[2]]
            until = time.monotonic() + LEASE_SECONDS
            while time.monotonic() < until:
                second.look()
            assert second.taken == [[2]]
            assert depth(app, 1) == Depth(waiting=0, in_flight=1)
        assert second.take(2) == [[2], [1]]


def test_released_leases_run_out_at_once(redis_url: str) -> None:
    """For a local run that saw its only worker die. The lease is longer than the test may take."""
    app = create_app(redis_url, 1, lease_seconds=3_600)
    send(app, [1], [2])
    with consuming(app) as dead, consuming(app, acknowledge=True) as alive:
        assert dead.take(2) == [[1], [2]]
        alive.look()
        assert alive.taken == []
        release_all(app)
        assert sorted(alive.take(2)) == [[1], [2]]
    assert depth(app, 1).empty
    release_all(app)
    app.close()


def test_kombus_names_for_its_keys_are_still_those_that_we_use(app: Celery, redis_server: RedisServer) -> None:
    """Attributes of kombu's that no interface promises, and the prefix that goes before them."""
    send(app, [1])
    with consuming(app) as worker, redis_server.client as client:
        worker.take(1)
        (message,) = worker.messages
        tag = message.delivery_tag.encode()
        assert client.hkeys("tagonce:unacked") == [tag]
        assert client.zrange("tagonce:unacked_index", 0, -1) == [tag]
        assert (message.channel.unacked_key, message.channel.unacked_index_key) == ("unacked", "unacked_index")


def test_renewing_sets_the_time_of_what_is_held_and_lists_nothing_again(app: Celery, redis_server: RedisServer) -> None:
    """A message that was acknowledged a moment ago would else come back from nowhere."""
    send(app, [1], [2])
    with consuming(app) as worker, redis_server.client as client:
        worker.take(2)
        kept, done = worker.messages
        leases = Leases(app)
        with leases.held(kept.delivery_tag), leases.held(done.delivery_tag):
            client.zadd("tagonce:unacked_index", {kept.delivery_tag: 1.0})
            done.ack()
            leases.renew()
            ((tag, renewed),) = client.zrange("tagonce:unacked_index", 0, -1, withscores=True)
            assert tag == kept.delivery_tag.encode()
            assert renewed == pytest.approx(time.time(), abs=60)


def test_leases_are_renewed_again_after_redis_was_away(app: Celery, redis_server: RedisServer) -> None:
    send(app, [1])
    with consuming(app) as worker:
        worker.take(1)
        leases = Leases(app)
        with leases.held(worker.messages[0].delivery_tag):
            leases.renew()
            redis_server.kill()
            for _ in range(3):
                with pytest.raises(BrokerError, match="does not answer"):
                    leases.renew()
            redis_server.start()
            leases.renew()
            with redis_server.client as client:
                assert client.zscore("tagonce:unacked_index", worker.messages[0].delivery_tag) == pytest.approx(
                    time.time(), abs=60
                )


def test_nothing_held_needs_no_redis() -> None:
    Leases(create_app("redis://127.0.0.1:1/0", 1)).renew()
