"""One database, PostgreSQL or SQLite: how to open it, read from it and write to it.

Everything that differs between the two at the level of connections is in this file.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import DatabaseError as DatabaseFault
from sqlalchemy.exc import TimeoutError as NoConnectionInTime

from db import migrate
from db.errors import DatabaseError, SettingsError, TransientError
from db.gone import OPTION, Gone

BUSY_TIMEOUT_MS = 60_000
"""How long a writer waits for another one. A chunk is written in well under a second."""

_BEGIN = "tagonce_sqlite_begin"
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
"""PostgreSQL's codes."""


class Database:
    """Transactions on one database. Threads share it; processes open their own.

    Args:
        url: `postgresql://user:password@host/name` or `sqlite:///path/to/file.db`.

    Raises:
        SettingsError: the URL is not one of these.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(_parse(url))

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
        """A transaction that only reads.

        Args:
            gone: which images its queries are about.
        """
        with self._transaction("BEGIN", gone) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes; committed at the end of the block.

        SQLite takes its write lock right here: a transaction that starts reading and then wants to write is refused
        at once when somebody else has written meanwhile, whatever the busy timeout is.
        """
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def _transaction(self, sqlite_begin: str, gone: Gone = Gone.EXCLUDE) -> Iterator[Connection]:
        try:
            with (
                self.engine.connect().execution_options(**{_BEGIN: sqlite_begin, OPTION: gone}) as connection,
                connection.begin(),
            ):
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
        if self.dialect == "postgresql":
            event.listen(self.engine, "connect", _limit_waiting_for_locks)
            self.engine.dispose()

    def limit_statements(self, seconds: int) -> None:
        """From now on no statement takes longer, for who waits for a page. SQLite knows no such limit."""
        if self.dialect == "postgresql":
            event.listen(self.engine, "connect", partial(_limit_statements, seconds=seconds))
            self.engine.dispose()

    def without_time_limit(self, connection: Connection) -> None:
        """In this transaction a statement may take as long as it does."""
        if self.dialect == "postgresql":
            connection.execute(text("set local statement_timeout = 0"))

    def close(self) -> None:
        self.engine.dispose()


def open_database(url: str, *, create: bool = True) -> Database:
    """Open a database that has the schema of this program.

    Args:
        url: see `Database`.
        create: make the tables, or bring older ones forward. With False nothing is written: a database that is not
            there, or is older, is an error.

    Raises:
        DatabaseError: it cannot be reached, was made by a newer tagonce, or (`create=False`) is not there.
        SettingsError: the URL is wrong.
    """
    database = Database(url)
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


def _engine(url: URL) -> Engine:
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.get_backend_name() == "postgresql":
        options["connect_args"] = {"application_name": "tagonce", **_PATIENCE}
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
    from db import packed

    packed.register(connection)
    connection.execute(_SERVERS_PATIENCE)
    connection.commit()


def _limit_waiting_for_locks(connection: Any, _record: object) -> None:
    connection.execute(f"set lock_timeout = {BUSY_TIMEOUT_MS}")
    connection.commit()


def _limit_statements(connection: Any, _record: object, *, seconds: int) -> None:
    connection.execute(f"set statement_timeout = '{seconds}s'")
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
