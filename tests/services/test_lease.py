"""Leases: a message stays with the worker that renews its lease. Without renewal it is delivered again."""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from celery import Celery
from kombu import Connection
from kombu.transport import redis as kombu_redis

from db.errors import BrokerError
from producer.queue.broker import Depth, create_app, depth, queue_name, release_all
from producer.queue.chunks import sending
from producer.queue.transport import QoS
from tests.fixtures.command import wait_until
from tests.fixtures.servers import RedisServer
from workers.queue.leases import Leases

KEY = "tagonce:tag.1"
LEASE_SECONDS = 3
NOTHING = 0.3
"""Seconds without a message after which a consumer looks for expired leases."""


class Consumer:
    """A consumer that takes messages like a worker.

    Args:
        acknowledge: acknowledge messages at once, so that none of them is delivered again.
    """

    def __init__(self, connection: Connection, *, acknowledge: bool) -> None:
        self.taken: list[list[int]] = []
        self.messages: list[Any] = []
        self.qos = connection.default_channel.qos
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
        """Take the waiting messages, and return messages with expired leases to the queue."""
        with suppress(TimeoutError):
            self._connection.drain_events(timeout=NOTHING)

    def take(self, number: int) -> list[list[int]]:
        """Wait until it has taken a number of chunks."""

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
    """For longer than a lease. Without further renewal the first message comes back, too."""
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
    """For a local run whose only worker died. The lease is longer than the timeout of the test."""
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


def test_the_lock_of_restoring_lives_for_seconds(redis_url: str, redis_server: RedisServer) -> None:
    """A worker that dies with the lock blocks the others for this time, regardless of the lease."""
    for lease, most in ((3, 3), (120, 30), (86_400, 30)):
        app = create_app(redis_url, 1, lease_seconds=lease)
        with app.connection_for_read() as connection, redis_server.client as client:
            channel = connection.default_channel
            with kombu_redis.Mutex(channel.client, channel.unacked_mutex_key, channel.unacked_mutex_expire):
                assert most - 1 < client.pttl("tagonce:unacked_mutex") / 1000 <= most
        app.close()


def test_two_that_restore_at_once_neither_double_nor_lose(
    app: Celery, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of the first consumer, which is slow, has expired. Meanwhile a second one restores all messages, and a
    third takes a message under its old tag. The first one continues with the list that it read before.
    """
    send(app, *([number] for number in range(1, 11)))
    restore, looked = QoS.restore_by_tag, iter([True])
    with consuming(app) as dead, consuming(app) as alive, app.connection_for_read() as slow_connection:
        dead.take(10)
        slow, fast = slow_connection.default_channel.qos, alive.qos
        with redis_server.client as client:
            client.zadd("tagonce:unacked_index", dict.fromkeys(client.zrange("tagonce:unacked_index", 0, -1), 1.0))

            def restore_late(self: QoS, tag: str, *arguments: Any, **named: Any) -> None:
                if self is slow and next(looked, False):
                    client.delete("tagonce:unacked_mutex")  # as if the lock had expired
                    fast.restore_visible(num=10, interval=1)
                    assert depth(app, 1) == Depth(waiting=10, in_flight=0)
                    alive.take(3)
                restore(self, tag, *arguments, **named)

            monkeypatch.setattr(QoS, "restore_by_tag", restore_late)
            slow.restore_visible(num=10, interval=1)
            assert len(alive.taken) == 3
            assert depth(app, 1) == Depth(waiting=7, in_flight=3)
            waiting = [json.loads(base64.b64decode(json.loads(one)["body"]))[1] for one in client.lrange(KEY, 0, -1)]
        seen = [image_id for one in waiting for image_id in one["image_ids"]] + [ids[0] for ids in alive.taken]
        assert sorted(seen) == list(range(1, 11))


def test_kombus_names_for_its_keys_are_still_those_that_we_use(app: Celery, redis_server: RedisServer) -> None:
    """Attributes of kombu that are not part of a public interface, and their prefix."""
    send(app, [1])
    with consuming(app) as worker, redis_server.client as client:
        worker.take(1)
        (message,) = worker.messages
        tag = message.delivery_tag.encode()
        assert client.hkeys("tagonce:unacked") == [tag]
        assert client.zrange("tagonce:unacked_index", 0, -1) == [tag]
        assert (message.channel.unacked_key, message.channel.unacked_index_key) == ("unacked", "unacked_index")


def test_renewing_sets_the_time_of_what_is_held_and_lists_nothing_again(app: Celery, redis_server: RedisServer) -> None:
    """Otherwise a message that was just acknowledged would be delivered again."""
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
