"""As many threads as a worker may have chunks in work use a database at the same time."""

import threading
from collections.abc import Callable

from sqlalchemy import text

from db.database import open_database

THREADS = 24
"""More than a process has connections that was not told."""


def test_no_thread_waits_for_the_connection_of_another(
    database_url: str, in_threads: Callable[[int, Callable[[int, threading.Barrier], None]], None]
) -> None:
    database = open_database(database_url, threads=THREADS)

    def hold(_position: int, barrier: threading.Barrier) -> None:
        with database.read() as connection:
            assert connection.scalar(text("select 1")) == 1
            barrier.wait(20)  # each has its own, or nobody gets here

    in_threads(THREADS, hold)
    database.close()
