"""Brings the postings of a model up to date while a worker is idle, so that a run ends with fast searches."""

import logging
from collections.abc import Callable

from db.database import Database
from db.errors import TagonceError
from db.ledger.models import Model
from db.names.plural import counted
from db.postings.build import update_postings
from db.sql.connection.locks import try_lock_name
from workers.queue import background
from workers.queue.watchdog import Watchdog

log = logging.getLogger(__name__)

IDLE_SECONDS = 30.0
"""Time without a chunk after which a run counts as over."""
_PAUSE = 10.0
_LOCK = 0x7A60_0000_0000
"""An arbitrary number of our own, to which the id of the model is added: one worker of a model builds at a time."""


class IdleIndex:
    """Looks from time to time, from a thread of its own.

    Args:
        waiting: number of chunks on the queue; raises BrokerError if Redis does not answer.
    """

    def __init__(self, database: Database, model: Model, watchdog: Watchdog, waiting: Callable[[], int]) -> None:
        self._database = database
        self._model = model
        self._watchdog = watchdog
        self._waiting = waiting

    def start(self) -> None:
        background.repeat("index", _PAUSE, self.look)

    def look(self) -> None:
        """Update the postings if there is no work. Ends between two blocks when this worker takes a chunk."""
        try:
            if self._watchdog.idle_seconds < IDLE_SECONDS or self._waiting():
                return
            # The lock is held by a transaction of its own; each block is written in another one.
            with self._database.read() as connection:
                if not try_lock_name(connection, _LOCK + self._model.id):
                    return
                built = update_postings(self._database, self._model, should_stop=lambda: self._is_needed)
        except TagonceError as error:
            log.warning("the index was not updated: %s", error)
            return
        if built:
            log.info("updated the index: %s", counted(built, "block"))

    @property
    def _is_needed(self) -> bool:
        return self._watchdog.idle_seconds == 0
