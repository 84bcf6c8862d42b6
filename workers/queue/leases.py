"""Renews the leases of chunks while they are processed.

Redis has no heartbeat for messages: one that is not acknowledged within the lease is delivered to another worker. It is
renewed by setting its time in `unacked_index` to now, every third of the lease. kombu has no call for that; a test
checks that the two attributes of kombu used here exist.
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
    """Renews all held leases, from a thread of its own."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._held: set[str] = set()
        period: float = app.conf.broker_transport_options["visibility_timeout"] / 3
        background.repeat("leases", period, self._renew_or_warn)

    @contextmanager
    def held(self, delivery_tag: str) -> Iterator[None]:
        """Inside the block the lease of this message is renewed."""
        self._held.add(delivery_tag)
        try:
            yield
        finally:
            self._held.discard(delivery_tag)

    def renew(self) -> None:
        """Renew all held leases once.

        Raises:
            BrokerError: Redis does not answer. The leases have not expired yet; there is time for another attempt.
        """
        tags = list(self._held)
        if not tags:
            return
        with (
            errors_mapped(self._app),
            self._app.pool.acquire(block=True) as connection,
            connection.default_channel.conn_or_acquire() as client,
        ):
            # xx: update existing entries only. A message that was acknowledged meanwhile must not be added again.
            client.zadd(connection.default_channel.unacked_index_key, dict.fromkeys(tags, time.time()), xx=True)

    def _renew_or_warn(self) -> None:
        try:
            self.renew()
        except BrokerError as error:
            log.warning("leases not renewed: %s", error)
