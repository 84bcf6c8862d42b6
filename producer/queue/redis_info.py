"""Properties of a Redis server that decide whether it can hold a queue."""

import time
from dataclasses import dataclass
from statistics import median

from celery import Celery

from producer.queue import broker

_PINGS = 5


@dataclass(frozen=True, slots=True)
class RedisInfo:
    """Answers of Redis to INFO and TIME."""

    server: str
    """Name and version: `Valkey 9.1.0`, `Redis 7.4.2`."""
    protocol: tuple[int, ...]
    """The version of Redis that it implements."""
    policy: str
    """`maxmemory-policy`: which keys it evicts when its memory is full."""
    used_bytes: int
    limit_bytes: int
    """`maxmemory`; 0: no limit."""
    append_only: bool
    """Whether its append-only file is on, which keeps the queue over a restart."""
    seconds: float
    """Median round trip."""
    ahead_seconds: float
    """How far its clock is ahead of ours, median."""


def read(app: Celery) -> RedisInfo:
    """Query the server.

    Raises:
        BrokerError: Redis does not answer, or denies INFO or TIME.
    """
    broker.check(app)
    with (
        broker.errors_mapped(app),
        app.pool.acquire(block=True) as connection,
        connection.default_channel.conn_or_acquire() as client,
    ):
        seconds, ahead = [], []
        for _ in range(_PINGS):
            begun = time.time()
            whole, millionths = client.time()
            seconds.append(time.time() - begun)
            ahead.append(whole + millionths / 1e6 - begun - seconds[-1] / 2)
        info = client.info()
    valkey = info.get("valkey_version")
    return RedisInfo(
        server=f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}",
        protocol=tuple(int(part) for part in str(info["redis_version"]).split(".")[:2]),
        policy=info.get("maxmemory_policy", "unknown"),
        used_bytes=info.get("used_memory", 0),
        limit_bytes=info.get("maxmemory", 0),
        append_only=bool(info.get("aof_enabled", 0)),
        seconds=median(seconds),
        ahead_seconds=median(ahead),
    )
