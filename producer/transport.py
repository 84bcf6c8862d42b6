"""kombu's Redis transport with one fault mended, so that a worker outlives an outage of Redis.

When the connection is lost, Celery closes it, channel and all, and opens another one. A task that ends after that still
acknowledges on the closed channel, and closing a second time still tries to restore what is not acknowledged. Both
want a connection made from settings that are gone by then: an AttributeError, which nobody expects, and which ends the
worker (celery 5.7.0, kombu 5.7.0). As a ConnectionError it is what it is: logged, and the chunk comes back when its
lease runs out, to be skipped as done.
"""

from typing import Any

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from redis.exceptions import ConnectionError as RedisConnectionError


class Channel(kombu_redis.Channel):  # type: ignore[misc] # kombu has no types
    def _connparams(self, *args: Any, **kwargs: Any) -> Any:
        if self.connection is None or self.connection.client is None:
            raise RedisConnectionError("this channel's connection to Redis was lost and is closed")
        return super()._connparams(*args, **kwargs)


class Transport(kombu_redis.Transport):  # type: ignore[misc] # kombu has no types
    Channel = Channel


def register() -> None:
    """Make it what `redis://`, `rediss://` and `redis+socket://` stand for."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
