"""kombu's Redis transport with two faults mended, so that a worker outlives an outage of Redis and strange messages.

When the connection is lost, Celery closes it, channel and all, and opens another one. A task that ends after that still
acknowledges on the closed channel, and closing a second time still tries to restore what is not acknowledged. Both
want a connection made from settings that are gone by then: an AttributeError, which nobody expects, and which ends the
worker (celery 5.7.0, kombu 5.7.0). As a ConnectionError it is what it is: logged, and the chunk comes back when its
lease runs out, to be skipped as done.

An entry of the queue that is no JSON, or JSON of another shape, ends the worker too, and the next one ends the next
worker. Here it is dropped, and the log says so.
"""

import logging
from typing import Any

from kombu.transport import redis as kombu_redis
from redis.exceptions import ConnectionError as RedisConnectionError

from producer.broker import QUEUE_PREFIX
from producer.envelope import plain_headers, why_refused

log = logging.getLogger(__name__)


class QoS(kombu_redis.QoS):  # type: ignore[misc] # kombu has no types
    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        try:
            super().restore_by_tag(tag, client, leftmost)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            # Left where it is, it would stop every look for leases that ran out, and what lies behind it would stay.
            log.error("dropped an entry of the messages in work that is none: %s", error)  # noqa: TRY400
            with self.channel.conn_or_acquire(client) as connection, connection.pipeline() as pipe:
                self._remove_from_indices(tag, pipe).execute()


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
