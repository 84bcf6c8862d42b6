"""Bring a database to the schema of this program, or refuse it."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from db.errors import DatabaseError
from db.sql.locks import lock_name

_LOCK = 0x7A60_0CE0
"""Any number that is ours: PostgreSQL's advisory locks are named by integers."""


@dataclass(frozen=True, slots=True)
class Level:
    """Which migrations a database has seen."""

    present: str | None
    """Number of the last one; None without tables of ours."""
    head: str
    """The last one that this program has."""
    newer: bool
    """A newer program has run one that this one does not have."""

    @property
    def current(self) -> bool:
        return self.present == self.head


def level(connection: Connection) -> Level:
    """Look, and change nothing."""
    present = MigrationContext.configure(connection).get_current_revision()
    return Level(present, head=_known()[0], newer=present is not None and present not in _known())


def upgrade(connection: Connection, to: str = "head") -> None:
    """Run the migrations that are missing, inside the caller's transaction. Safe from several processes at once.

    Args:
        to: the number of the last one to run.

    Raises:
        DatabaseError: the database was made by a newer tagonce.
    """
    lock_name(connection, _LOCK)
    if not _not_newer(connection).current:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, to)


def check(connection: Connection) -> None:
    """Refuse a database that `upgrade` would change. Writes nothing, and costs a millisecond.

    Raises:
        DatabaseError: it is empty, older, or was made by a newer tagonce.
    """
    if not _not_newer(connection).current:
        raise DatabaseError(
            "The database has no tables of tagonce, or older ones. Tag or enqueue something: that makes them, or "
            "brings them forward."
        )


def _not_newer(connection: Connection) -> Level:
    found = level(connection)
    if found.newer:
        raise DatabaseError(
            f"The database was written by a newer tagonce (schema {found.present}; this one knows up to "
            f"{found.head}). Upgrade this program."
        )
    return found


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


@cache
def _known() -> tuple[str, ...]:
    """Numbers of all migrations of this program, the last one first."""
    return tuple(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())
