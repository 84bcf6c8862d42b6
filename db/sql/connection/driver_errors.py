"""Converts errors of the drivers to errors of tagonce: try again, or change something."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError as DatabaseFault
from sqlalchemy.exc import DBAPIError, OperationalError

from db.errors import DatabaseError, TagonceError, TransientError

_CHECK = "Check the disk, and TAGONCE_DATABASE_URL (or --database)."
_DISK_FULL = "53100"
_NOT_ALLOWED = "42501"
_READ_ONLY = "25006"
_CANCELLED = "57014"
_REFERS_TO_NONE = "23503"
_NOT_PREPARED = {"26000", "42P05"}
"""SQLSTATE codes of PostgreSQL. `_REFERS_TO_NONE`: a foreign key names no row. The last two: a prepared
statement is missing, or already exists."""


def explain(error: DBAPIError, label: str) -> TagonceError | None:
    """The error of tagonce, with a sentence for people; None for an error that a bug in tagonce causes.

    Args:
        label: name of the database, in the message.
    """
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate in _NOT_PREPARED:
        return DatabaseError(
            f"The database {label} mixes up prepared statements ({_first_line(error)}): it is behind a pooler in "
            "transaction mode. Add ?prepare_threshold=none to TAGONCE_DATABASE_URL (&... after other options)."
        )
    if (passing := _passing(error, sqlstate, label)) is not None:
        return TransientError(passing)
    if sqlstate == _NOT_ALLOWED:
        return DatabaseError(
            f"The user of the database {label} may not do that: {_first_line(error)}. docs/security.md lists the "
            "rights of each role."
        )
    # Exactly the base class, not a subclass: the file is not a database.
    if isinstance(error, OperationalError) or type(error) is DatabaseFault or sqlstate == _READ_ONLY:
        return DatabaseError(f"The database {label} cannot be used: {_first_line(error)}. {_CHECK}")
    return None


def _passing(error: DBAPIError, sqlstate: str | None, label: str) -> str | None:
    """The sentence of an error that may not come again; None for other errors."""
    if sqlstate == _CANCELLED or getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
        return (
            f"The database stopped a statement that took too long: {_first_line(error)}. Searches by tag are "
            "fast after `tagonce index`."
        )
    if sqlstate == _REFERS_TO_NONE and error.orig.diag.constraint_name.endswith("_image_id_fkey"):  # type: ignore[union-attr]
        return (
            f"Images were deleted from the database {label} by plain SQL while their results were written: "
            f"{_first_line(error)}. Try again."
        )
    return f"The database {label} does not answer: {_first_line(error)}." if _will_pass(error) else None


def _will_pass(error: DBAPIError) -> bool:
    """Whether the database is unreachable or busy, and not full, read-only, without our tables, or not a database."""
    if isinstance(error.orig, sqlite3.Error):
        return is_busy(error.orig)
    full = getattr(error.orig, "sqlstate", None) == _DISK_FULL
    return (isinstance(error, OperationalError) and not full) or error.connection_invalidated


def is_busy(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the higher bits are the extended code
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0].rstrip(".")


@contextmanager
def as_sqlalchemy_errors(connection: Connection, statement: str) -> Iterator[None]:
    """Convert errors of the driver to errors of SQLAlchemy, as `explain` expects them."""
    dbapi = connection.dialect.loaded_dbapi
    try:
        yield
    except dbapi.Error as error:
        raise DBAPIError.instance(statement, None, error, dbapi.Error, dialect=connection.dialect) from error
