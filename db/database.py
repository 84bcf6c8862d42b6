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
from db.sql.connections import (
    BUSY_TIMEOUT_MS,
    make_engine,
    parse_url,
    read_options,
    set_in_transactions,
    sqlite_file,
    write_options,
)
from db.sql.driver_errors import explain
from db.sql.gone_scope import OPTION, Gone

CONNECTIONS = 5
"""Kept, at least, by a process that used as many at the same time."""


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
        secret = {name: "***" for name in url.query if "password" in name}  # libpq takes one there, too
        return url.update_query_dict(secret).render_as_string(hide_password=True)

    @contextmanager
    def read(self, *, gone: Gone = Gone.EXCLUDE) -> Iterator[Connection]:
        """A transaction that only reads, and sees the database as it was at its first statement until its end.

        What is shown together has to be read in one of them. PostgreSQL refuses to write in it.

        Args:
            gone: which images its queries are about.
        """
        with self._transaction(**read_options(self.dialect), **{OPTION: gone}) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes; committed at the end of the block."""
        with self._transaction(**write_options()) as connection:
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
        """From now on, wait for locks of PostgreSQL as long as for those of SQLite. A migration must not be limited.

        A change to a table may hold its lock for hours, and a worker that waits without an error looks stuck.
        """
        set_in_transactions(self.engine, f"lock_timeout = {BUSY_TIMEOUT_MS}")

    def limit_statements(self, seconds: int) -> None:
        """From now on, PostgreSQL cancels a statement after this time. SQLite has no such limit."""
        set_in_transactions(self.engine, f"statement_timeout = '{seconds}s'")

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
    file = database.file
    if not create and file is not None and not file.exists():
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
