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


def upgrade(connection: Connection) -> None:
    """Run the migrations that are missing, inside the caller's transaction. Safe from several processes at once.

    Raises:
        DatabaseError: the database was made by a newer tagonce.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    present = MigrationContext.configure(connection).get_current_revision()
    if present == scripts.get_current_head():
        return
    known = {script.revision for script in scripts.walk_revisions()}
    if present is not None and present not in known:
        raise DatabaseError(
            f"The database was written by a newer tagonce (schema {present}; this one knows up to "
            f"{scripts.get_current_head()}). Upgrade this program: pip install --upgrade tagonce"
        )
    command.upgrade(config, "head")
