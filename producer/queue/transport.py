"""kombu's Redis transport with three faults fixed: outages of Redis, malformed messages, and slow restoring.

When the connection is lost, Celery closes it with its channels and opens another one. A task that ends later still
acknowledges on the closed channel, and a second close still tries to restore unacknowledged messages. Both need a
connection made from settings that no longer exist: an AttributeError, which Celery does not handle, ends the worker
(celery 5.7.0, kombu 5.7.0). Raised as a ConnectionError it is handled: Celery logs it, and the chunk is delivered again
when its lease expires, and skipped as done.

An entry of the queue that is not JSON, or is JSON of another shape, also ends the worker, and the next worker that
receives it. Here it is dropped and logged.

Messages with expired leases are restored under a lock that lives for seconds (`producer.queue.broker`). A worker that
takes longer continues with an outdated list, and would take messages away from the workers that hold them now.
"""

import json
import logging
import time
from typing import Any

from kombu.transport import redis as kombu_redis
from redis.exceptions import ConnectionError as RedisConnectionError

from producer.queue.broker import QUEUE_PREFIX
from producer.queue.envelope import plain_headers, why_refused

log = logging.getLogger(__name__)


class QoS(kombu_redis.QoS):  # type: ignore[misc] # kombu has no types
    _expired_before: float | None = None
    """Set while this worker restores messages of others: leases taken or renewed after this time have not expired."""

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        self._expired_before = time.time() - self.visibility_timeout
        try:
            super().restore_visible(*args, **kwargs)
        finally:
            self._expired_before = None

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        try:
            if self._expired_before is None:
                super().restore_by_tag(tag, client, leftmost)
            else:
                self._restore_expired(tag, self._expired_before, client)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            # If it stayed, it would stop every check for expired leases, and no message behind it would be restored.
            log.error("dropped a malformed entry of the unacknowledged messages: %s", error)  # noqa: TRY400
            with self.channel.conn_or_acquire(client) as connection, connection.pipeline() as pipe:
                self._remove_from_indices(tag, pipe).execute()

    def _restore_expired(self, tag: Any, expired_before: float, client: Any) -> None:
        """Restore a message as kombu does, unless its lease was renewed since this worker listed it.

        That happens if this worker was slow, or frozen, for longer than the lifetime of the lock: another worker has
        restored the message meanwhile, under the same tag, and a third may hold it.
        """

        def restore(pipe: Any) -> None:
            taken = pipe.hget(self.unacked_key, tag)
            # kombu's client adds the prefix only for the commands that kombu uses, and ZSCORE is not one.
            taken_at = pipe.zscore(f"{self.channel.global_keyprefix}{self.unacked_index_key}", tag)
            pipe.multi()
            if taken_at is not None and taken_at > expired_before:
                return
            self._remove_from_indices(tag, pipe)
            if taken:
                message, exchange, routing_key = json.loads(taken)
                self.channel._do_restore_message(message, exchange, routing_key, pipe, False)  # noqa: SLF001

        # Taking a message changes both keys in one transaction, so watching one of them is enough.
        with self.channel.conn_or_acquire(client) as connection:
            connection.transaction(restore, self.unacked_key)


class Channel(kombu_redis.Channel):  # type: ignore[misc] # kombu has no types
    QoS = QoS

    def _connparams(self, *args: Any, **kwargs: Any) -> Any:
        if self.connection is None or self.connection.client is None:
            raise RedisConnectionError("this channel's connection to Redis was lost and is closed")
        return super()._connparams(*args, **kwargs)

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, RecursionError) as error:
            log.error("dropped an entry of the queue that is not JSON: %s", error)  # noqa: TRY400 - not our bug
            return None


class Transport(kombu_redis.Transport):  # type: ignore[misc] # kombu has no types
    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        # Queues of other names are Celery's own: remote control and its replies.
        ours = queue.startswith(QUEUE_PREFIX)
        refused = why_refused(message) if ours else None
        if refused or not isinstance(message, dict):
            # Quoted with %r: the reason may contain text of an untrusted sender.
            log.error("dropped a message that was not sent by tagonce: %.200r", refused or "not an object")
            return
        super()._deliver(message | {"headers": plain_headers(message)} if ours else message, queue)
