"""A database, PostgreSQL or SQLite: opened, read and written in transactions."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionInTime

from db import migrate
from db.errors import DatabaseError, TransientError
from db.scope import Gone
from db.sql.connection.connections import (
    BUSY_TIMEOUT_MS,
    limit_statements,
    make_engine,
    parse_url,
    read_options,
    set_in_transactions,
    sqlite_file,
    write_options,
)
from db.sql.connection.driver_errors import explain
from db.sql.gone_scope import OPTION

CONNECTIONS = 5
"""The least number of connections that a pool keeps open for reuse."""


class Database:
    """Transactions on one database. Threads share it; processes open their own.

    Args:
        url: `postgresql://user:password@host/name` or `sqlite:///path/to/file.db`. For PostgreSQL, the query string
            takes the options of libpq and psycopg's `prepare_threshold`; `none` suits poolers without support for
            prepared statements.
        threads: number of threads that use the database at the same time. The pool keeps as many connections, and at
            least five. It opens up to ten more on demand. A thread that finds no free connection waits for 30 s.

    Raises:
        SettingsError: the URL names no such database, or an unknown option.
    """

    def __init__(self, url: str, *, threads: int = 1) -> None:
        self.engine = make_engine(parse_url(url), max(CONNECTIONS, threads))

    @property
    def dialect(self) -> str:
        """`postgresql` or `sqlite`."""
        return self.engine.dialect.name

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database; None on PostgreSQL."""
        return sqlite_file(self.engine)

    @property
    def label(self) -> str:
        """The URL without its password, for messages."""
        url = self.engine.url
        secret = {name: "***" for name in url.query if "password" in name}  # libpq accepts a password there, too
        return url.update_query_dict(secret).render_as_string(hide_password=True)

    @contextmanager
    def read(self, *, gone: Gone = Gone.EXCLUDE) -> Iterator[Connection]:
        """A read-only transaction: a snapshot of the database as of its first statement.

        Figures that are shown together must be read in one transaction. PostgreSQL refuses writes in it.

        Args:
            gone: which images its queries include.

        Raises:
            TransientError: all connections are busy, or the database does not answer.
            DatabaseError: the database cannot be used.
        """
        with self._transaction(**read_options(self.dialect), **{OPTION: gone}) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes. It is committed at the end of the block, and rolled back by an exception.

        Raises:
            TransientError: all connections are busy, or the database does not answer.
            DatabaseError: the database cannot be used.
        """
        with self._transaction(**write_options(self.dialect)) as connection:
            yield connection

    @contextmanager
    def _transaction(self, **options: Any) -> Iterator[Connection]:
        try:
            with self.engine.connect() as connection, connection.execution_options(**options).begin():
                yield connection
        except NoConnectionInTime as error:
            raise TransientError(f"All connections to the database {self.label} are busy. Try again.") from error
        except DBAPIError as error:
            explained = explain(error, self.label)
            if explained is None:
                raise
            raise explained from error

    def limit_waiting_for_locks(self) -> None:
        """From now on, PostgreSQL waits for a lock no longer than SQLite does, one minute. Not for migrations.

        A change to a table may hold its lock for hours, and a worker that waits without an error looks stuck.
        """
        set_in_transactions(self.engine, f"lock_timeout = {BUSY_TIMEOUT_MS}")

    def limit_statements(self, seconds: int) -> None:
        """From now on, a statement is stopped after this number of seconds with a TransientError."""
        limit_statements(self.engine, seconds)

    def close(self) -> None:
        self.engine.dispose()


def open_database(url: str, *, create: bool = True, threads: int = 1, report: migrate.Report | None = None) -> Database:
    """Open a database that has the schema of this program.

    Args:
        url: see `Database`.
        create: create or upgrade the tables. With False nothing is written, and a missing or older database is an
            error.
        threads: see `Database`.
        report: is called with the progress of an upgrade in pieces; by default it is logged.

    Raises:
        DatabaseError: the database cannot be reached, was written by a newer tagonce, or, with `create=False`, is
            missing or older.
        SettingsError: the URL is wrong.
    """
    database = Database(url, threads=threads)
    file = database.file
    if not create and file is not None and not file.exists():
        raise DatabaseError(
            f"The database {file} does not exist. Tag images first (`tagonce tag FOLDER`), or set the path of another "
            "database with --database or TAGONCE_DATABASE_URL."
        )
    try:
        if create:
            migrate.upgrade(database.write, report or migrate.LogProgress())
        else:
            with database.read() as connection:
                migrate.check(connection)
    except TransientError as error:
        database.close()
        raise DatabaseError(f"{error} {_advice(str(error.__cause__))}") from error
    except BaseException:
        database.close()
        raise
    return database


def _advice(message: str) -> str:
    """Advice for a failed connection. libpq gives no error code for these, so its message decides."""
    if "certificate" in message:
        return (
            "In TAGONCE_DATABASE_URL (or --database), set sslrootcert=/path/ca.pem, the file of the authority that "
            "signed the server's certificate, and write the host as in that certificate."
        )
    if "authentication failed" in message or "no password supplied" in message:
        return (
            "Check user and password in TAGONCE_DATABASE_URL (or --database). In a URL, characters such as @ : / # % "
            "of a password are percent-encoded, @ as %40."
        )
    return "Is it running, and is TAGONCE_DATABASE_URL (or --database) right?"
