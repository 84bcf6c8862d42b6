"""Upgrade a database to the schema of this program, or refuse it."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from db.errors import DatabaseError
from db.sql.locks import lock_name

_SCRIPTS = Path(__file__).parent / "migrations"
_LOCK = 0x7A60_0CE0
"""An arbitrary number of our own: PostgreSQL's advisory locks are named by integers."""


@dataclass(frozen=True, slots=True)
class Level:
    """Which migrations a database has had."""

    present: str | None
    """Number of the last migration; None without tables of ours."""
    head: str
    """Number of the last migration of this program."""
    newer: bool
    """A newer program has run a migration that this one lacks."""

    @property
    def current(self) -> bool:
        return self.present == self.head


def level(connection: Connection) -> Level:
    """Look, and change nothing."""
    # Not by Alembic, whose import takes longer than most commands.
    present: str | None = None
    if inspect(connection).has_table("alembic_version"):
        present = connection.scalar(text("select version_num from alembic_version"))
    return Level(present, head=_known()[-1], newer=present is not None and present not in _known())


def upgrade(connection: Connection, to: str = "head") -> None:
    """Run the missing migrations in the caller's transaction. Several processes may do so at once.

    Args:
        to: the number of the last migration to run.

    Raises:
        DatabaseError: the database was written by a newer tagonce.
    """
    lock_name(connection, _LOCK)
    if not _not_newer(connection).current:
        from alembic import command
        from alembic.config import Config

        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(_SCRIPTS))
        command.upgrade(config, to)


def check(connection: Connection) -> None:
    """Refuse a database that `upgrade` would change. Writes nothing, and takes a millisecond.

    Raises:
        DatabaseError: the database is empty, older, or was written by a newer tagonce.
    """
    found = _not_newer(connection)
    if not found.current:
        present = "no tables of tagonce" if found.present is None else f"tables of an older tagonce ({found.present})"
        raise DatabaseError(
            f"The database has {present}; this program needs schema {found.head}. Run `tagonce migrate` to create or "
            "upgrade the tables; `tag`, `enqueue` and `worker` do so too."
        )


def _not_newer(connection: Connection) -> Level:
    found = level(connection)
    if found.newer:
        raise DatabaseError(
            f"The database was written by a newer tagonce (schema {found.present}; this one knows up to "
            f"{found.head}). Upgrade this program."
        )
    return found


@cache
def _known() -> tuple[str, ...]:
    """Numbers of all migrations of this program, in order. The names of their files begin with them."""
    return tuple(sorted(path.name.partition("_")[0] for path in _SCRIPTS.glob("versions/[0-9]*.py")))
