"""Makes an engine from the URL of a database, and configures each new connection for its dialect."""

import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from db.errors import SettingsError
from db.sql.connection import blob_functions
from db.sql.connection.driver_errors import is_busy

BUSY_TIMEOUT_MS = 60_000
"""Milliseconds that a writer waits for another one. A chunk is written in well under a second."""

_BEGIN = "tagonce_sqlite_begin"
_UNLIMITED = "tagonce_unlimited"
"""Execution option of a connection on SQLite whose statements have no time limit."""
_STEPS = 10_000
"""Instructions of SQLite's virtual machine between two looks at the clock: about a millisecond."""
_SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
"""By default each statement on PostgreSQL sees what was committed before it. The pool resets these options when the
connection is returned."""
_LATEST = {"isolation_level": "READ COMMITTED"}
_PREPARE = "prepare_threshold"
"""psycopg prepares a statement after this number of executions. In a URL 0 means never, like none: users of a pooler
write either of them, and it is never useful to prepare every statement."""
_NOT_IN_A_URL = {"autocommit", "context", "cursor_factory", "row_factory"}
"""Arguments of psycopg's `connect` that our transactions depend on."""
_CLIENT_TIMEOUTS = {
    "connect_timeout": 10,
    # An unreachable host is probed after 30 s of silence, and its connection is dropped after a minute. The default is
    # two hours, and a worker that waits for an answer would be stuck as long.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Options of libpq, in seconds. The last one is in milliseconds and limits how long sent data stays unacknowledged."""
_SERVER_TIMEOUTS = "set tcp_keepalives_idle = 30; set tcp_keepalives_interval = 10; set tcp_keepalives_count = 3"
"""The same for the server, which by default detects an unreachable client after two hours. Until then the locks of that
client block the workers that now have its chunks."""


def read_options(dialect: str) -> dict[str, Any]:
    """Execution options of a transaction that only reads: one snapshot."""
    return {_BEGIN: "BEGIN", **(_SNAPSHOT if dialect == "postgresql" else {})}


def write_options(dialect: str) -> dict[str, Any]:
    """Execution options of a transaction that writes.

    SQLite takes its write lock at BEGIN. Otherwise a transaction that reads first and then writes fails at once if
    another one has written meanwhile, regardless of the busy timeout. On PostgreSQL a statement after that of a lock
    must see what was committed while it waited (`db.sql.connection.locks`), whatever the server's default is.
    """
    return {_BEGIN: "BEGIN IMMEDIATE", **(_LATEST if dialect == "postgresql" else {})}


def set_in_transactions(engine: Engine, setting: str) -> None:
    """PostgreSQL: `set local` in every transaction. A setting of the session would leak to other users of a pooler."""
    if engine.dialect.name == "postgresql":
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(f"set local {setting}"))


def limit_statements(engine: Engine, seconds: int) -> None:
    """Stop every statement after so many seconds, and on SQLite also what Python does between its rows."""
    set_in_transactions(engine, f"statement_timeout = '{seconds}s'")
    if engine.dialect.name != "sqlite":
        return

    def limit(connection: Connection, cursor: sqlite3.Cursor, *_statement: object) -> None:
        end = time.monotonic() + seconds
        unlimited = connection.get_execution_options().get(_UNLIMITED)
        cursor.connection.set_progress_handler(None if unlimited else lambda: time.monotonic() > end, _STEPS)

    event.listen(engine, "before_cursor_execute", limit)


def lift_statement_timeout(connection: Connection) -> None:
    """Remove the time limit of the statements of this transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("set local statement_timeout = 0"))
    else:
        connection.execution_options(**{_UNLIMITED: True})


def sqlite_file(engine: Engine) -> Path | None:
    """The file of an SQLite database; None on PostgreSQL."""
    file = engine.url.database
    return Path(file) if engine.dialect.name == "sqlite" and file else None


def parse_url(url: str) -> URL:
    """The URL with the driver that tagonce uses.

    Raises:
        SettingsError: it is not the URL of a PostgreSQL database or an SQLite file.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is not a number
        raise SettingsError(
            "TAGONCE_DATABASE_URL (or --database) is not a database URL. Examples: sqlite:///tags.db, "
            "postgresql://user:password@host/tagonce"
        ) from error
    backend = parsed.get_backend_name()
    if backend in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise SettingsError(
                "An SQLite database in memory cannot be shared with the worker. Name a file: sqlite:///tags.db"
            )
        return parsed.set(drivername="sqlite+pysqlite")
    raise SettingsError(
        f"tagonce stores in PostgreSQL or SQLite, not in {backend!r}. Change TAGONCE_DATABASE_URL (or --database)."
    )


def make_engine(url: URL, connections: int) -> Engine:
    """An engine with a pool of connections.

    Args:
        url: from `parse_url`.
        connections: number of connections that the pool keeps.

    Raises:
        SettingsError: the URL has an unknown option, or the driver of PostgreSQL is not installed.
    """
    options: dict[str, Any] = {"pool_pre_ping": True, "pool_size": connections}
    if url.get_backend_name() == "postgresql":
        url, ours = _driver_options(url)
        options["connect_args"] = {"application_name": "tagonce", **_CLIENT_TIMEOUTS, **ours}
    try:
        engine = create_engine(url, **options)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise SettingsError("PostgreSQL needs the driver psycopg: pip install 'tagonce[postgres]'") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "connect", _configure_postgresql)
    return engine


def _driver_options(url: URL) -> tuple[URL, dict[str, int | None]]:
    """Separate psycopg's own option, which is not text: (URL without it, the option).

    Raises:
        SettingsError: the URL has an option that neither psycopg nor libpq supports.
    """
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import make_conninfo
    except ModuleNotFoundError:
        return url, {}  # SQLAlchemy raises the error
    plain = url.difference_update_query([_PREPARE])
    wrong = "TAGONCE_DATABASE_URL (or --database)"
    if unsuitable := _NOT_IN_A_URL & plain.query.keys():
        raise SettingsError(f"{wrong}: {', '.join(sorted(unsuitable))} cannot be set in the URL. Remove it.")
    try:
        make_conninfo(**{name: value for name, value in plain.query.items() if isinstance(value, str)})
    except ProgrammingError as error:
        raise SettingsError(f"{wrong}: {str(error).strip()}.") from error
    given = url.query.get(_PREPARE)
    if given is None:
        return plain, {}
    if str(given).lower() in {"0", "none", "off"}:
        return plain, {_PREPARE: None}
    if not str(given).isdecimal():
        raise SettingsError(f"{wrong}: {_PREPARE} must be a number or none, not {given!r}.")
    return plain, {_PREPARE: int(str(given))}


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Python's sqlite3 begins transactions by itself, but only before some statements. SQLAlchemy recommends to switch
    # that off and to send BEGIN explicitly.
    connection.isolation_level = None
    _use_write_ahead_log(connection)
    blob_functions.register(connection)
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "synchronous = NORMAL",  # in WAL mode: a crash loses nothing, a power cut at most the last commits
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch to WAL, so that readers continue while one process writes. SQLite ignores its busy timeout here."""
    give_up = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))


def _configure_postgresql(connection: Any, _record: object) -> None:
    from db.sql.connection import psycopg_arrays

    psycopg_arrays.register(connection)
    connection.execute(_SERVER_TIMEOUTS)
    connection.commit()
