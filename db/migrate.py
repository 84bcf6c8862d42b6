"""Bring a database to the schema of this program, or refuse it."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from db.errors import DatabaseError

_LOCK = 0x7A60_0CE0
"""Any number that is ours: PostgreSQL's advisory locks are named by integers."""


def upgrade(connection: Connection, to: str = "head") -> None:
    """Run the migrations that are missing, inside the caller's transaction. Safe from several processes at once.

    Args:
        to: the number of the last one to run.

    Raises:
        DatabaseError: the database was made by a newer tagonce.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    config = _config()
    config.attributes["connection"] = connection
    if not _is_current(connection, ScriptDirectory.from_config(config)):
        command.upgrade(config, to)


def check(connection: Connection) -> None:
    """Refuse a database that `upgrade` would change. Writes nothing.

    Raises:
        DatabaseError: it is empty, older, or was made by a newer tagonce.
    """
    if not _is_current(connection, ScriptDirectory.from_config(_config())):
        raise DatabaseError(
            "The database has no tables of tagonce, or older ones. Tag or enqueue something: that makes them, or "
            "brings them forward."
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _is_current(connection: Connection, scripts: ScriptDirectory) -> bool:
    present, head = MigrationContext.configure(connection).get_current_revision(), scripts.get_current_head()
    known = {script.revision for script in scripts.walk_revisions()}
    if present is not None and present not in known:
        raise DatabaseError(
            f"The database was written by a newer tagonce (schema {present}; this one knows up to {head}). "
            "Upgrade this program."
        )
    return present == head
