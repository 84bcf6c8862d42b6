"""The queue: Redis, its configuration, waiting chunks, and workers."""

import time
from collections.abc import Iterator

from celery import Celery
from kombu.utils.url import parse_url

from db.errors import BrokerError, DatabaseError
from db.ledger import models
from db.names.plural import counted
from producer.queue import broker, redis_info
from producer.queue.redis_info import RedisInfo
from tagonce.doctor import clock
from tagonce.doctor.finding import Finding, Status
from tagonce.from_settings import stored
from tagonce.local import embedded_redis
from tagonce.settings import Settings

NAME = "broker"
QUEUE = "queue"
SLOW_SECONDS = 0.1
FULL = 0.8
"""Share of maxmemory above which a warning is given."""
LOCK_LOOKS = 4
LOCK_SECONDS = 0.25
"""Between two looks at a lock that is normally held for milliseconds."""
_OURS = (None, "", "localhost", "127.0.0.1", "::1")
_LEAVES_NOTHING = "Otherwise a full Redis, or a restart, loses chunks; `tagonce enqueue --pending` queues them again."


def look(config: Settings) -> Iterator[Finding]:
    """Check the Redis server."""
    if config.broker_url is None:
        yield from _without_broker()
        return
    app = broker.create_app(config.broker_url, 0, client_name="tagonce-doctor")
    facts = redis_info.read(app)
    milliseconds = 1000 * facts.seconds
    words = f"{facts.server}, a round trip takes {milliseconds:,.1f} ms"
    slow = facts.seconds > SLOW_SECONDS
    yield Finding(NAME, Status.WARNING if slow else Status.OK, words, "Move it nearer to the workers." if slow else "")
    yield from _how_it_is_set_up(facts)
    parts = parse_url(config.broker_url)
    if (
        parts.get("hostname") not in _OURS
        and not config.broker_url.startswith("redis+socket")
        and not parts["password"]
    ):
        yield Finding(
            NAME,
            Status.WARNING,
            "it accepts connections without a password: TAGONCE_BROKER_URL has none",
            "Set requirepass, and use redis://:PASSWORD@host:6379/0.",
        )
    yield clock.finding(facts.ahead_seconds, "Redis", config.lease_seconds)


def _without_broker() -> Iterator[Finding]:
    try:
        server = embedded_redis.find_server()
    except BrokerError as error:
        yield Finding(NAME, Status.WARNING, "none is set, and `tagonce tag` finds no Redis to start", str(error))
    else:
        words = f"none is set, which is fine on a single machine: `tagonce tag` starts {server}"
        yield Finding(NAME, Status.OK, words, "For several machines, set TAGONCE_BROKER_URL.")


def _how_it_is_set_up(facts: RedisInfo) -> Iterator[Finding]:
    if facts.protocol < embedded_redis.OLDEST:
        needed = ".".join(map(str, embedded_redis.OLDEST))
        yield Finding(NAME, Status.FAILED, f"Redis {needed} or newer is needed, or Valkey", "Upgrade the server.")
    if facts.policy != "noeviction":
        yield Finding(
            NAME,
            Status.WARNING,
            f"maxmemory-policy is {facts.policy}: if memory is full, Redis deletes the queue",
            f"Set maxmemory-policy noeviction. {_LEAVES_NOTHING}",
        )
    if not facts.append_only:
        yield Finding(
            NAME,
            Status.WARNING,
            "appendonly is no: a restart empties the queue",
            f"Set appendonly yes. {_LEAVES_NOTHING}",
        )
    used = facts.used_bytes / 1e6
    if not facts.limit_bytes:
        yield Finding(NAME, Status.OK, f"{used:,.0f} MB of memory in use, no limit set")
    elif facts.used_bytes < FULL * facts.limit_bytes:
        yield Finding(NAME, Status.OK, f"{used:,.0f} of {facts.limit_bytes / 1e6:,.0f} MB of memory in use")
    else:
        words = f"{used:,.0f} of {facts.limit_bytes / 1e6:,.0f} MB of memory in use"
        yield Finding(NAME, Status.WARNING, words, "Raise maxmemory, or lower TAGONCE_MAX_QUEUE.")


def look_at_queue(config: Settings) -> Iterator[Finding]:
    """Check for waiting chunks of each model, and for workers."""
    if config.broker_url is None:
        yield Finding(QUEUE, Status.SKIPPED, "no broker is set")
        return
    app = broker.create_app(config.broker_url, 0, client_name="tagonce-doctor")
    alive = broker.workers(app)
    words = f"{', '.join(alive)} answering" if alive else "no worker answers"
    yield Finding(QUEUE, Status.OK, words)
    try:
        with stored(config) as database, database.read() as connection:
            known = models.every(connection)
    except DatabaseError:
        known = []  # reported by the check of the database
    yield from _restore_lock(app)
    for model in known:
        depth = broker.depth(app, model.id)
        words = f"{model.label}: {counted(depth.waiting, 'chunk')} waiting"
        if depth.waiting and not alive:
            yield Finding(QUEUE, Status.WARNING, words, "Start a worker: tagonce worker")
        else:
            yield Finding(QUEUE, Status.OK, words)


def _restore_lock(app: Celery) -> Iterator[Finding]:
    """Check for the lock of a worker that was killed."""
    seconds = 0.0
    for look in range(LOCK_LOOKS):
        if look:
            time.sleep(LOCK_SECONDS)
        seconds = broker.restore_lock_seconds(app)
        held = broker.depth(app, 0).in_flight
        if not seconds or not held:
            return
    yield Finding(
        QUEUE,
        Status.WARNING,
        f"{counted(held, 'chunk is', 'chunks are')} held by workers, and the lock for restoring chunks of dead workers "
        f"is taken for another {seconds:,.0f} s",
        "A worker was killed while it held the lock. It expires; until then, chunks of dead workers wait.",
    )
