"""kombu's Redis transport with three faults mended: outages of Redis, strange messages, and slow restoring.

When the connection is lost, Celery closes it, channel and all, and opens another one. A task that ends after that still
acknowledges on the closed channel, and closing a second time still tries to restore what is not acknowledged. Both
want a connection made from settings that are gone by then: an AttributeError, which nobody expects, and which ends the
worker (celery 5.7.0, kombu 5.7.0). As a ConnectionError it is what it is: logged, and the chunk comes back when its
lease runs out, to be skipped as done.

An entry of the queue that is no JSON, or JSON of another shape, ends the worker too, and the next one ends the next
worker. Here it is dropped, and the log says so.

Messages whose leases ran out are put back under a lock that lives for seconds (`producer.queue.broker`). A worker that
takes longer goes on from an old list, and would take messages from workers that have them now.
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
    """While this worker puts back what others held: leases taken or renewed since have not run out."""

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
            # Left where it is, it would stop every look for leases that ran out, and what lies behind it would stay.
            log.error("dropped an entry of the messages in work that is none: %s", error)  # noqa: TRY400
            with self.channel.conn_or_acquire(client) as connection, connection.pipeline() as pipe:
                self._remove_from_indices(tag, pipe).execute()

    def _restore_expired(self, tag: Any, expired_before: float, client: Any) -> None:
        """As kombu does it, unless the lease has begun anew since this worker looked.

        It has where this worker was slow, or frozen, for longer than the lock under which it looks lives: another one
        has put the message back then, under the same tag, and somebody works on it.
        """

        def restore(pipe: Any) -> None:
            taken = pipe.hget(self.unacked_key, tag)
            # kombu's client adds the prefix to the keys of the commands that kombu uses, and ZSCORE is none.
            taken_at = pipe.zscore(f"{self.channel.global_keyprefix}{self.unacked_index_key}", tag)
            pipe.multi()
            if taken_at is not None and taken_at > expired_before:
                return
            self._remove_from_indices(tag, pipe)
            if taken:
                message, exchange, routing_key = json.loads(taken)
                self.channel._do_restore_message(message, exchange, routing_key, pipe, False)  # noqa: SLF001

        # Both change in one transaction when a message is taken, so that watching one of them is enough.
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
            log.error("dropped an entry of the queue that is no JSON: %s", error)  # noqa: TRY400 - not our bug
            return None


class Transport(kombu_redis.Transport):  # type: ignore[misc] # kombu has no types
    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        # Queues of other names are Celery's own: remote control and the answers to it.
        ours = queue.startswith(QUEUE_PREFIX)
        refused = why_refused(message) if ours else None
        if refused or not isinstance(message, dict):
            # Quoted: the reason may hold what a stranger has written.
            log.error("dropped a message that no producer of ours has sent: %.200r", refused or "it is no object")
            return
        super()._deliver(message | {"headers": plain_headers(message)} if ours else message, queue)
