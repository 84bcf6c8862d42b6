"""One database, PostgreSQL or SQLite: how to open it, read from it and write to it.

Everything that differs between the two at the level of connections is in this file.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import DatabaseError as DatabaseFault
from sqlalchemy.exc import TimeoutError as NoConnectionInTime

from db import migrate
from db.errors import DatabaseError, SettingsError, TransientError
from db.ledger.gone import OPTION
from db.ledger.scope import Gone

BUSY_TIMEOUT_MS = 60_000
"""How long a writer waits for another one. A chunk is written in well under a second."""

CONNECTIONS = 5
"""Kept, at least, by a process that used as many at the same time."""

_BEGIN = "tagonce_sqlite_begin"
_SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
"""PostgreSQL's default shows each statement what was committed before it. The pool takes these back with the
connection."""
_PREPARE = "prepare_threshold"
"""psycopg prepares a statement that comes so often. Here 0 means never, as none does: behind a pooler people write
either, and nobody wants each statement prepared."""
_NOT_IN_A_URL = {"autocommit", "context", "cursor_factory", "row_factory"}
"""Arguments of psycopg's `connect` that our transactions depend on."""
_CHECK = "Check the disk, and TAGONCE_DATABASE_URL (or --database)."
_PATIENCE = {
    "connect_timeout": 10,
    # A host that is gone without a word: asked after half a minute of silence, given up after a minute. By default it
    # is after two hours, and a worker that waits for its answer would be stuck as long.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""libpq's, in seconds; the last one in milliseconds, and for what was sent and not acknowledged."""
_SERVERS_PATIENCE = "set tcp_keepalives_idle = 30; set tcp_keepalives_interval = 10; set tcp_keepalives_count = 3"
"""The same the other way round. By default the server learns after two hours that a host is gone, and until then the
locks of what that one was about to write stand in the way of those that have its chunks now."""
_DISK_FULL = "53100"
_NOT_ALLOWED = "42501"
_READ_ONLY = "25006"
_CANCELLED = "57014"
_NOT_PREPARED = {"26000", "42P05"}
"""PostgreSQL's codes. Of the last: a prepared statement is not there, or is there already."""


class Database:
    """Transactions on one database. Threads share it; processes open their own.

    Args:
        url: `postgresql://user:password@host/name` or `sqlite:///path/to/file.db`. After a `?`, PostgreSQL's takes
            what libpq knows, and psycopg's `prepare_threshold`: none, for poolers that know no prepared statements.
        threads: that use it at the same time: as many connections are kept, and at least five. Ten more are made when
            they are wanted; who finds none waits for half a minute.

    Raises:
        SettingsError: the URL is not one of these.
    """

    def __init__(self, url: str, *, threads: int = 1) -> None:
        self.engine = _engine(_parse(url), max(CONNECTIONS, threads))

    @property
    def dialect(self) -> str:
        """`postgresql` or `sqlite`."""
        return self.engine.dialect.name

    @property
    def label(self) -> str:
        """The URL without its password, for messages."""
        url = self.engine.url
        secret = {name: "***" for name in url.query if "password" in name}  # libpq takes one there, too
        return url.update_query_dict(secret).render_as_string(hide_password=True)

    @contextmanager
    def read(self, *, gone: Gone = Gone.EXCLUDE) -> Iterator[Connection]:
        """A transaction that only reads, and sees the database as it was at its first statement until its end.

        What is shown together has to be read in one of them. PostgreSQL refuses to write in it.

        Args:
            gone: which images its queries are about.
        """
        snapshot = _SNAPSHOT if self.dialect == "postgresql" else {}
        with self._transaction(**snapshot, **{_BEGIN: "BEGIN", OPTION: gone}) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes; committed at the end of the block.

        SQLite takes its write lock right here: a transaction that starts reading and then wants to write is refused
        at once when somebody else has written meanwhile, whatever the busy timeout is.
        """
        with self._transaction(**{_BEGIN: "BEGIN IMMEDIATE"}) as connection:
            yield connection

    @contextmanager
    def _transaction(self, **options: Any) -> Iterator[Connection]:
        try:
            with self.engine.connect() as connection, connection.execution_options(**options).begin():
                yield connection
        except NoConnectionInTime as error:
            raise TransientError(f"All connections to the database {self.label} are at work. Try again.") from error
        except DBAPIError as error:
            sqlstate = getattr(error.orig, "sqlstate", None)
            if sqlstate == _CANCELLED:
                raise TransientError(
                    f"The database was stopped before it had an answer: {_first_line(error)}. Searches by tag are fast "
                    "after `tagonce index`."
                ) from error
            if sqlstate in _NOT_PREPARED:
                raise DatabaseError(
                    f"The database {self.label} mixes up prepared statements ({_first_line(error)}): there is a pooler "
                    "before it in transaction mode. Add ?prepare_threshold=none to TAGONCE_DATABASE_URL (&... after "
                    "other options)."
                ) from error
            if _will_pass(error):
                raise TransientError(f"The database {self.label} does not answer: {_first_line(error)}.") from error
            if sqlstate == _NOT_ALLOWED:
                raise DatabaseError(
                    f"The user of the database {self.label} may not do that: {_first_line(error)}. Which role may do "
                    "what is in docs/security.md."
                ) from error
            # The general class itself, and not one of those below it: a file that is no database.
            if isinstance(error, OperationalError) or type(error) is DatabaseFault or sqlstate == _READ_ONLY:
                raise DatabaseError(
                    f"The database {self.label} cannot be used: {_first_line(error)}. {_CHECK}"
                ) from error
            raise

    def limit_waiting_for_locks(self) -> None:
        """As long as on SQLite, from now on. Not for a migration, which has to wait.

        Somebody who changes a table may hold it for hours, and a worker that waits without a word looks stuck.
        """
        self._set_in_transactions(f"lock_timeout = {BUSY_TIMEOUT_MS}")

    def limit_statements(self, seconds: int) -> None:
        """From now on no statement takes longer, for who waits for a page. SQLite knows no such limit."""
        self._set_in_transactions(f"statement_timeout = '{seconds}s'")

    def _set_in_transactions(self, setting: str) -> None:
        """In each of them, and not once a session: a pooler would hand the session on to somebody else."""
        if self.dialect == "postgresql":
            event.listen(self.engine, "begin", lambda connection: connection.exec_driver_sql(f"set local {setting}"))

    def without_time_limit(self, connection: Connection) -> None:
        """In this transaction a statement may take as long as it does."""
        if self.dialect == "postgresql":
            connection.execute(text("set local statement_timeout = 0"))

    def close(self) -> None:
        self.engine.dispose()


def open_database(url: str, *, create: bool = True, threads: int = 1) -> Database:
    """Open a database that has the schema of this program.

    Args:
        url: see `Database`.
        create: make the tables, or bring older ones forward. With False nothing is written: a database that is not
            there, or is older, is an error.
        threads: see `Database`.

    Raises:
        DatabaseError: it cannot be reached, was made by a newer tagonce, or (`create=False`) is not there.
        SettingsError: the URL is wrong.
    """
    database = Database(url, threads=threads)
    file = database.engine.url.database
    if database.dialect == "sqlite" and not create and file and not Path(file).exists():
        raise DatabaseError(
            f"There is no database {file}. Tag something first (`tagonce tag FOLDER`), or say where it is with "
            "--database or TAGONCE_DATABASE_URL."
        )
    try:
        if create:
            with database.write() as connection:
                migrate.upgrade(connection)
        else:
            with database.read() as connection:
                migrate.check(connection)
    except TransientError as error:
        database.close()
        raise DatabaseError(f"{error} {_what_to_do(str(error.__cause__))}") from error
    except BaseException:
        database.close()
        raise
    return database


def expect_all_rows(connection: Connection) -> None:
    """Before a stream of images that a search finds: for this transaction, PostgreSQL plans for reading all of them.

    It plans cursors for their first rows, and takes two tags to be together in next to no image: that made it compare
    each image found with every image there is, which took 80 times as long.
    """
    if connection.dialect.name == "postgresql":
        # No cursor for this one, whatever was streamed before.
        options = {"stream_results": False}
        connection.execute(text("set local cursor_tuple_fraction = 1.0"), execution_options=options)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # ValueError: of a port that is no number
        raise SettingsError(
            "TAGONCE_DATABASE_URL (or --database) is not a database URL. Examples: sqlite:///tags.db, "
            "postgresql://user:password@host/tagonce"
        ) from error
    backend = parsed.get_backend_name()
    if backend in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise SettingsError("An SQLite database in memory cannot be shared with the worker. Name a file.")
        return parsed.set(drivername="sqlite+pysqlite")
    raise SettingsError(f"tagonce stores in PostgreSQL or SQLite, not in {backend!r}.")


def _engine(url: URL, connections: int) -> Engine:
    options: dict[str, Any] = {"pool_pre_ping": True, "pool_size": connections}
    if url.get_backend_name() == "postgresql":
        url, ours = _driver_options(url)
        options["connect_args"] = {"application_name": "tagonce", **_PATIENCE, **ours}
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
    """The URL without psycopg's own option, which is no text, and that option.

    Raises:
        SettingsError: the URL holds an option that neither psycopg nor libpq knows.
    """
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import make_conninfo
    except ModuleNotFoundError:
        return url, {}  # and SQLAlchemy says so
    plain = url.difference_update_query([_PREPARE])
    wrong = "TAGONCE_DATABASE_URL (or --database)"
    if unsuitable := _NOT_IN_A_URL & plain.query.keys():
        raise SettingsError(f"{wrong}: {', '.join(sorted(unsuitable))} cannot be set in it.")
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
        raise SettingsError(f"{wrong}: {_PREPARE} is a number or none, not {given!r}.")
    return plain, {_PREPARE: int(str(given))}


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Python's sqlite3 opens transactions by itself and only before some statements; SQLAlchemy's own advice is to
    # switch that off and say BEGIN ourselves.
    connection.isolation_level = None
    _use_write_ahead_log(connection)
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "synchronous = NORMAL",  # in WAL mode: a crash loses nothing, a power cut at most the last commits
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """So that readers go on while one process writes. SQLite does not wait for others here, whatever its timeout is."""
    give_up = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))


def _configure_postgresql(connection: Any, _record: object) -> None:
    from db.sql import psycopg_arrays

    psycopg_arrays.register(connection)
    connection.execute(_SERVERS_PATIENCE)
    connection.commit()


def _will_pass(error: DBAPIError) -> bool:
    """Away or busy, as against full, read-only, without our tables, or no database at all."""
    if isinstance(error.orig, sqlite3.Error):
        return _is_busy(error.orig)
    full = getattr(error.orig, "sqlstate", None) == _DISK_FULL
    return (isinstance(error, OperationalError) and not full) or error.connection_invalidated


def _is_busy(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says which kind of busy
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _what_to_do(words: str) -> str:
    """By libpq's words: it tells nothing else apart when a connection fails."""
    if "certificate" in words:
        return (
            "Name the file of the authority that signed the server's certificate, sslrootcert=/path/ca.pem in "
            "TAGONCE_DATABASE_URL, and write the host as the certificate does."
        )
    if "authentication failed" in words or "no password supplied" in words:
        return (
            "Check user and password in TAGONCE_DATABASE_URL (or --database). In a URL, characters such as @ : / # % "
            "of a password are written as %40 and so on."
        )
    return "Is it running, and is TAGONCE_DATABASE_URL (or --database) right?"


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0].rstrip(".")
