"""The Celery application on Redis: all settings of the queue, and the reason for each.

Redis holds, under the prefix `tagonce:`

    tag.<model id>      list of messages, one chunk of image ids each, waiting for a worker that runs that model
    unacked             hash of messages that workers hold; `unacked_index` sorts them by the time they were taken
    unacked_mutex       lock of the worker that restores messages with expired leases
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
"""Default lease: a message that is neither acknowledged nor renewed for so long is delivered to another worker. Workers
renew every third of it, so a slow chunk is not taken twice, and a killed worker's chunk returns soon."""

SUPPORTED = ("redis://", "rediss://", "redis+socket://")


def queue_name(model_id: int) -> str:
    """One queue a model, so that a worker receives only chunks for its own model."""
    return f"{QUEUE_PREFIX}{model_id}"


def create_app(
    broker_url: str, model_id: int, *, lease_seconds: int = LEASE_SECONDS, client_name: str = "tagonce"
) -> Celery:
    """The application of producers and workers. If they set different leases on one Redis, the shortest applies.

    Raises:
        SettingsError: `broker_url` is not a Redis URL.
    """
    if not broker_url.startswith(SUPPORTED):
        # The value is not shown: a malformed URL may contain the password anywhere.
        raise SettingsError(
            f"TAGONCE_BROKER_URL has to be a Redis URL ({', '.join(SUPPORTED)}...), "
            "for example redis://:password@localhost:6379/0."
        )
    if broker_url.startswith("rediss://") and "ssl_cert_reqs=" not in broker_url:
        # kombu's default accepts any certificate and only logs a line.
        broker_url += ("&" if "?" in broker_url else "?") + "ssl_cert_reqs=required"
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "producer.queue.transport:Transport"))
    app = Celery("tagonce", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,  # results go to the database
        task_store_errors_even_if_ignored=False,
        task_queues=[Queue(queue_name(model_id))],
        task_default_queue=queue_name(model_id),
        task_create_missing_queues=False,  # a misspelt queue is an error, not a queue without workers
        task_acks_late=True,  # acknowledge after the rows are committed
        task_acks_on_failure_or_timeout=True,
        task_reject_on_worker_lost=False,  # True would redeliver a chunk that kills its worker for ever
        worker_pool="threads",
        worker_disable_prefetch=True,  # a worker holds only the chunks that it runs
        worker_prefetch_multiplier=4,  # not 1: with 1, an outage during an acknowledgement blocks the worker
        worker_enable_remote_control=True,  # its socket is the first to notice that Redis is back
        worker_cancel_long_running_tasks_on_connection_loss=False,  # threads cannot be cancelled
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "global_keyprefix": "tagonce:",
            "client_name": client_name,
            "visibility_timeout": lease_seconds,
            # Seconds between checks for expired leases.
            "unacked_restore_interval": max(1, lease_seconds // 12),
            "unacked_restore_throttle": 1,  # the default, 10, checks only every 100 s
            # Lifetime in seconds of the lock that a worker holds while it checks. If the worker dies or hangs with it,
            # no other worker checks until it expires; the default is 300. `producer.queue.transport` handles a lock
            # that expires too early.
            "unacked_mutex_expire": max(3, min(30, lease_seconds // 4)),
            "socket_timeout": 10,  # the default, none, waits for ever on a silently broken connection
            "socket_connect_timeout": 5,
            "socket_keepalive": not broker_url.startswith("redis+socket://"),
            "health_check_interval": 10,
        },
    )
    return app


@dataclass(frozen=True, slots=True)
class Depth:
    """Length of the queue in chunks, not images."""

    waiting: int
    """On the queue of one model."""
    in_flight: int
    """Held by workers, of any model on this Redis."""

    @property
    def empty(self) -> bool:
        return self.waiting == 0 and self.in_flight == 0


def depth(app: Celery, model_id: int) -> Depth:
    """Chunks waiting for a model, and chunks held by workers.

    Raises:
        BrokerError: Redis does not answer.
    """
    with _redis(app) as (client, channel):
        # kombu's passive declaration does not find queues whose keys have a prefix.
        return Depth(client.llen(queue_name(model_id)), client.hlen(channel.unacked_key))


def restore_lock_seconds(app: Celery) -> float:
    """Remaining lifetime of the lock under which kombu restores chunks of dead workers; 0 if it is free.

    A healthy worker holds it for milliseconds. If a worker is killed with it, it stays until it expires, and until then
    no chunk of any dead worker is restored.

    Raises:
        BrokerError: Redis does not answer.
    """
    with _redis(app) as (client, channel):
        # kombu's client adds the prefix only for the commands that kombu uses, and PTTL is not one.
        prefix = app.conf.broker_transport_options["global_keyprefix"]
        return max(0, int(client.pttl(prefix + channel.unacked_mutex_key))) / 1000


def check(app: Celery) -> None:
    """Connect to Redis once, to fail early with a clear message.

    Raises:
        BrokerError: it does not answer.
    """
    with _connected(app):
        pass


def workers(app: Celery, *, timeout: float = 1.0) -> list[str]:
    """Names of the workers that answer within `timeout` seconds, of any model on this Redis.

    Raises:
        BrokerError: Redis does not answer.
    """
    with _connected(app) as connection:
        answers = app.control.ping(timeout=timeout, connection=connection)
        return sorted(name for answer in answers for name in answer)


def release_all(app: Celery) -> None:
    """Expire every lease now. For a caller that knows that no worker is alive.

    Raises:
        BrokerError: Redis does not answer.
    """
    with _redis(app) as (client, channel):
        tags = client.zrange(channel.unacked_index_key, 0, -1)
        if tags:
            client.zadd(channel.unacked_index_key, dict.fromkeys(tags, 0), xx=True)


@contextmanager
def _redis(app: Celery) -> Iterator[tuple[Any, Any]]:
    """Kombu's Redis client, which adds the prefix to keys, and its channel, which has their names.

    The names are undocumented attributes of kombu; tests check that they exist.
    """
    with _connected(app) as connection, connection.channel() as channel, channel.conn_or_acquire() as client:
        yield client, channel


@contextmanager
def _connected(app: Celery) -> Iterator[Connection]:
    """A connection of the pool. One that failed before stays closed until `ensure_connection` reopens it."""
    with errors_mapped(app), app.connection_or_acquire() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0.2, timeout=10)
        yield connection


@contextmanager
def errors_mapped(app: Celery) -> Iterator[None]:
    """Turn the errors of kombu, Celery and redis-py into a BrokerError with advice."""
    try:
        yield
    except (OperationalError, KombuError, RedisError, ConnectionError, TimeoutError) as error:
        where = Connection(app.conf.broker_url).as_uri()
        raise BrokerError(f"Redis at {where} {_problem(error)}") from error


def _problem(error: Exception) -> str:
    """The cause and the remedy. kombu and redis-py may wrap the cause in their most general class."""
    words = str(error).rstrip(".")
    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)  # type: ignore[arg-type] # a BaseException does not occur here

    def caused_by(kind: type[Exception]) -> bool:
        return any(isinstance(cause, kind) for cause in causes)

    if caused_by(AuthenticationError):
        return (
            f"rejects the login: {words}. Check user and password in TAGONCE_BROKER_URL (or --broker): "
            "redis://user:password@host:6379/0, or redis://:password@host:6379/0 without a user."
        )
    if caused_by(NoPermissionError):
        return (
            f"denies this command to the user of TAGONCE_BROKER_URL: {words}. "
            "docs/security.md lists the rights it needs."
        )
    if caused_by(ssl.SSLCertVerificationError):
        return (
            f"has a certificate that is not accepted: {words}. Add the file of the authority that signed it, "
            "?ssl_ca_certs=/path/ca.pem, to TAGONCE_BROKER_URL, and use the host name of the certificate."
        )
    if caused_by(FileNotFoundError):
        return f"cannot be reached: {words}. Check the paths of files in TAGONCE_BROKER_URL (or --broker)."
    return (
        f"does not answer: {words}. Check that it is running, and that TAGONCE_BROKER_URL (or --broker) names its host "
        "and port and begins with rediss:// if it speaks TLS, with redis:// if not."
    )
