"""Upgrade a database to the schema of this program, or refuse it."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from db.errors import DatabaseError

_SCRIPTS = Path(__file__).parent / "migrations"
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
    # Not by Alembic, whose import takes longer than most commands.
    present: str | None = None
    if inspect(connection).has_table("alembic_version"):
        present = connection.scalar(text("select version_num from alembic_version"))
    return Level(present, head=_known()[-1], newer=present is not None and present not in _known())


def upgrade(connection: Connection, to: str = "head") -> None:
    """Run the migrations that are missing, inside the caller's transaction. Safe from several processes at once.

    Args:
        to: the number of the last one to run.

    Raises:
        DatabaseError: the database was made by a newer tagonce.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    if not _not_newer(connection).current:
        from alembic import command
        from alembic.config import Config

        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(_SCRIPTS))
        command.upgrade(config, to)


def check(connection: Connection) -> None:
    """Refuse a database that `upgrade` would change. Writes nothing, and costs a millisecond.

    Raises:
        DatabaseError: it is empty, older, or was made by a newer tagonce.
    """
    if not _not_newer(connection).current:
        raise DatabaseError(
            "The database has no tables of tagonce, or older ones. Create or upgrade them with `tagonce migrate`, or "
            "`tag`, `enqueue` or `worker`."
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
