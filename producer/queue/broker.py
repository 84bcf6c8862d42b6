"""The Celery application on Redis: one place for every setting of the queue, and the reason for each.

Redis holds, under the prefix `tagonce:`

    tag.<model id>      list of messages, one chunk of image ids each, waiting for a worker that runs that model
    unacked             hash of messages that workers hold; `unacked_index` sorts them by the time they were taken
    unacked_mutex       lock of the worker that puts messages back whose leases ran out
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celery import Celery
from kombu import Connection, Queue
from kombu.exceptions import KombuError, OperationalError
from kombu.transport import TRANSPORT_ALIASES
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from db.errors import BrokerError, SettingsError

TASK_NAME = "tagonce.tag"
QUEUE_PREFIX = "tag."

LEASE_SECONDS = 120
"""Default of how long a message may go without being acknowledged or renewed before another worker gets it. Workers
renew every third of it while they are at it: a slow chunk is not taken twice, a killed worker's chunk is back soon."""

SUPPORTED = ("redis://", "rediss://", "redis+socket://")


def queue_name(model_id: int) -> str:
    """A queue a model: a worker never meets a chunk that its model is not meant for."""
    return f"{QUEUE_PREFIX}{model_id}"


def create_app(
    broker_url: str, model_id: int, *, lease_seconds: int = LEASE_SECONDS, client_name: str = "tagonce"
) -> Celery:
    """The application that both producer and worker use. The shortest lease of any of them on one Redis counts.

    Raises:
        SettingsError: the URL is not one of Redis.
    """
    if not broker_url.startswith(SUPPORTED):
        # Without the value: what is not written as a URL may hold its password anywhere.
        raise SettingsError(
            f"TAGONCE_BROKER_URL has to be a Redis URL ({', '.join(SUPPORTED)}...), "
            "for example redis://:password@localhost:6379/0."
        )
    if broker_url.startswith("rediss://") and "ssl_cert_reqs=" not in broker_url:
        # kombu's default is to accept any certificate, with nothing but a line in the log.
        broker_url += ("&" if "?" in broker_url else "?") + "ssl_cert_reqs=required"
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "producer.queue.transport:Transport"))
    app = Celery("tagonce", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,  # the database is the result
        task_store_errors_even_if_ignored=False,
        task_queues=[Queue(queue_name(model_id))],
        task_default_queue=queue_name(model_id),
        task_create_missing_queues=False,  # a typo is an error here, not a queue that nobody reads
        task_acks_late=True,  # acknowledged when the rows are committed
        task_acks_on_failure_or_timeout=True,
        task_reject_on_worker_lost=False,  # True makes a chunk that kills its worker come back for ever
        worker_pool="threads",
        worker_disable_prefetch=True,  # a worker holds what it works on and nothing else
        worker_prefetch_multiplier=4,  # above 1 on purpose: at 1, an outage during an acknowledgement wedges the worker
        worker_enable_remote_control=True,  # its socket is what notices first that Redis came back
        worker_cancel_long_running_tasks_on_connection_loss=False,  # threads cannot be cancelled
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "global_keyprefix": "tagonce:",
            "client_name": client_name,
            "visibility_timeout": lease_seconds,
            # How often a worker looks for leases that ran out.
            "unacked_restore_interval": max(1, lease_seconds // 12),
            "unacked_restore_throttle": 1,  # the default of 10 looks for lost messages every 100 s only
            # Seconds that the lock lives under which a worker looks. One that dies, or hangs, while it has it keeps all
            # others from looking for so long; the default is 300. It may run out too early: `producer.queue.transport`.
            "unacked_mutex_expire": max(3, min(30, lease_seconds // 4)),
            "socket_timeout": 10,  # the default, none, waits for ever on a connection that died silently
            "socket_connect_timeout": 5,
            "socket_keepalive": not broker_url.startswith("redis+socket://"),
            "health_check_interval": 10,
        },
    )
    return app


@dataclass(frozen=True, slots=True)
class Depth:
    """Chunks, not images."""

    waiting: int
    in_flight: int
    """Held by workers, of any model on this Redis."""

    @property
    def empty(self) -> bool:
        return self.waiting == 0 and self.in_flight == 0


def depth(app: Celery, model_id: int) -> Depth:
    """How much there is in the queue.

    Raises:
        BrokerError: Redis does not answer.
    """
    with _redis(app) as (client, channel):
        # kombu's own way to ask, a passive declaration, finds no queue whose key has a prefix.
        return Depth(client.llen(queue_name(model_id)), client.hlen(channel.unacked_key))


def restore_lock_seconds(app: Celery) -> float:
    """How long the lock under which kombu gives chunks of dead workers back will be held; 0 where nobody holds it.

    A worker at work holds it for milliseconds. One that was killed meanwhile leaves it until it runs out, and until
    then no chunk of any dead worker is given back.

    Raises:
        BrokerError: Redis does not answer.
    """
    with _redis(app) as (client, channel):
        # kombu's client adds the prefix to the commands that kombu sends; this one is none of them.
        prefix = app.conf.broker_transport_options["global_keyprefix"]
        return max(0, int(client.pttl(prefix + channel.unacked_mutex_key))) / 1000


def check(app: Celery) -> None:
    """Say at once, and clearly, that Redis is not there.

    Raises:
        BrokerError: it does not answer.
    """
    with _connected(app):
        pass


def workers(app: Celery, *, timeout: float = 1.0) -> list[str]:
    """Names of the workers that answer, of any model on this Redis.

    Raises:
        BrokerError: Redis does not answer.
    """
    with _connected(app) as connection:
        answers = app.control.ping(timeout=timeout, connection=connection)
        return sorted(name for answer in answers for name in answer)


def release_all(app: Celery) -> None:
    """Let every lease run out now: for the one who knows that no worker is alive.

    Raises:
        BrokerError: Redis does not answer.
    """
    with _redis(app) as (client, channel):
        tags = client.zrange(channel.unacked_index_key, 0, -1)
        if tags:
            client.zadd(channel.unacked_index_key, dict.fromkeys(tags, 0), xx=True)


@contextmanager
def _redis(app: Celery) -> Iterator[tuple[Any, Any]]:
    """Kombu's Redis client, which adds the prefix to keys, and its channel, which knows their names.

    The names are attributes of kombu's and no interface of it: tests hold them.
    """
    with _connected(app) as connection, connection.channel() as channel, channel.conn_or_acquire() as client:
        yield client, channel


@contextmanager
def _connected(app: Celery) -> Iterator[Connection]:
    """A connection of the pool. One that failed before is closed for good, unless it is asked to connect."""
    with errors_mapped(app), app.connection_or_acquire() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0.2, timeout=10)
        yield connection


@contextmanager
def errors_mapped(app: Celery) -> Iterator[None]:
    """What kombu, Celery and redis-py raise when Redis is away becomes one BrokerError."""
    try:
        yield
    except (OperationalError, KombuError, RedisError, ConnectionError, TimeoutError) as error:
        where = Connection(app.conf.broker_url).as_uri()
        raise BrokerError(f"Redis at {where} {_what_is_wrong(error)}") from error


def _what_is_wrong(error: Exception) -> str:
    """And what to do about it. kombu and redis-py wrap what happened, at times in their most general class."""
    words = str(error).rstrip(".")
    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)  # type: ignore[arg-type] # of exceptions no other kind occurs

    def met(kind: type[Exception]) -> bool:
        return any(isinstance(cause, kind) for cause in causes)

    if met(AuthenticationError):
        return (
            f"does not let us in: {words}. Check user and password in TAGONCE_BROKER_URL (or --broker): "
            "redis://user:password@host:6379/0, or redis://:password@host:6379/0 without a user."
        )
    if met(NoPermissionError):
        return (
            f"does not allow that to the user of TAGONCE_BROKER_URL: {words}. docs/security.md has the rights needed."
        )
    if met(ssl.SSLCertVerificationError):
        return (
            f"has a certificate that is not accepted: {words}. Name the file of the authority that signed it, "
            "?ssl_ca_certs=/path/ca.pem at the end of TAGONCE_BROKER_URL, and write the host as the certificate does."
        )
    if met(FileNotFoundError):
        return f"cannot be asked: {words}. Is a file that TAGONCE_BROKER_URL (or --broker) names not there?"
    return (
        f"does not answer: {words}. Is it running, does it speak TLS (rediss://) or not (redis://), and is "
        "TAGONCE_BROKER_URL (or --broker) right?"
    )
