"""Threads for periodic work during the life of a worker. An unexpected error is logged and does not end them."""

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


def repeat(name: str, pause: float, work: Callable[[], None]) -> None:
    """Call `work` periodically in a daemon thread, first after `pause` seconds.

    Without the handler, a thread that ends by an error would write it to standard error once, and the failure would
    stay unnoticed until its effect: leases that are no longer renewed have every chunk of this worker taken twice.
    """

    def loop() -> None:
        while True:
            time.sleep(pause)
            try:
                work()
            except Exception:
                log.exception("the thread '%s' failed, and runs again in %.0f s", name, pause)

    threading.Thread(target=loop, name=name, daemon=True).start()
