"""Keep a chunk ours while we work on it.

Redis has no heartbeat for messages: one that is not acknowledged within the lease goes to another worker. Setting its
time in `unacked_index` to now, as often as every third of the lease, is what keeps it. kombu has no call for that; the
two attributes used here are its own names for its keys, and a test holds them.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery

from db.errors import BrokerError
from producer.queue.broker import errors_mapped
from workers.queue import background

log = logging.getLogger(__name__)


class Leases:
    """Renews, from one thread of its own, every lease that is held."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._held: set[str] = set()
        period: float = app.conf.broker_transport_options["visibility_timeout"] / 3
        background.repeat("leases", period, self._renew_or_warn)

    @contextmanager
    def held(self, delivery_tag: str) -> Iterator[None]:
        """Nobody else gets this message inside of the block."""
        self._held.add(delivery_tag)
        try:
            yield
        finally:
            self._held.discard(delivery_tag)

    def renew(self) -> None:
        """Once, for all.

        Raises:
            BrokerError: Redis does not answer. The leases run on; there is time for another try.
        """
        tags = list(self._held)
        if not tags:
            return
        with (
            errors_mapped(self._app),
            self._app.pool.acquire(block=True) as connection,
            connection.default_channel.conn_or_acquire() as client,
        ):
            # xx: only what is still there. A message that was acknowledged meanwhile must not be listed again.
            client.zadd(connection.default_channel.unacked_index_key, dict.fromkeys(tags, time.time()), xx=True)

    def _renew_or_warn(self) -> None:
        try:
            self.renew()
        except BrokerError as error:
            log.warning("leases not renewed: %s", error)
