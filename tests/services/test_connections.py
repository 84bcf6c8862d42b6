"""As many threads as a worker may have chunks use one database at the same time."""

import threading
from collections.abc import Callable

from sqlalchemy import text

from db.database import open_database

THREADS = 24
"""More than the connections of a process with the default number of threads."""


def test_no_thread_waits_for_the_connection_of_another(
    database_url: str, in_threads: Callable[[int, Callable[[int, threading.Barrier], None]], None]
) -> None:
    database = open_database(database_url, threads=THREADS)

    def hold(_position: int, barrier: threading.Barrier) -> None:
        with database.read() as connection:
            assert connection.scalar(text("select 1")) == 1
            barrier.wait(20)  # passes only if every thread has a connection of its own

    in_threads(THREADS, hold)
    database.close()
