"""Threads that look after a worker for as long as it lives: an error nobody foresaw is logged and does not end them."""

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


def repeat(name: str, pause: float, work: Callable[[], None]) -> None:
    """Do something again and again in a daemon thread, beginning after the first pause (seconds).

    A thread that ends by an error says so on standard error once, and nobody misses it until what it looked after
    breaks: leases that are renewed no more have every chunk of this worker taken twice.
    """

    def loop() -> None:
        while True:
            time.sleep(pause)
            try:
                work()
            except Exception:
                log.exception("the thread '%s' failed, and tries again in %.0f s", name, pause)

    threading.Thread(target=loop, name=name, daemon=True).start()
