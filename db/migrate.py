"""Upgrade a database to the schema of this program, or refuse it."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from db.errors import DatabaseError
from db.migrations import packing
from db.migrations.packing import Progress
from db.sql.connection.locks import lock_name

log = logging.getLogger(__name__)

Report = Callable[[Progress], None]
"""Is called before the first piece of a migration in pieces is written, and after each piece."""

_SCRIPTS = Path(__file__).parent / "migrations"
_LOCK = 0x7A60_0CE0
"""An arbitrary number of our own: PostgreSQL's advisory locks are named by integers."""


_PAUSE = 0.01
"""Seconds between two pieces. A process that waits for SQLite's lock looks every tenth of a second: without pauses it
would rarely find it free."""
_LOG_SECONDS = 10


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

    @property
    def interrupted(self) -> bool:
        """An upgrade is not complete: rows are in the old and in the new tables."""
        return self.present == packing.LEVEL


def level(connection: Connection) -> Level:
    """Look, and change nothing."""
    # Not by Alembic, whose import takes longer than most commands.
    present: str | None = None
    if inspect(connection).has_table("alembic_version"):
        present = connection.scalar(text("select version_num from alembic_version"))
    return Level(present, head=_known()[-1], newer=present is not None and present not in _known())


def upgrade(write: Callable[[], AbstractContextManager[Connection]], report: Report) -> None:
    """Run the missing migrations. Several processes may do so at once.

    All migrations are one transaction, but for the rows of a large SQLite database: those are moved in pieces
    (`db.migrations.packing`). An upgrade that is interrupted between them goes on with the next one.

    Args:
        write: begins a transaction.

    Raises:
        DatabaseError: the database was written by a newer tagonce, or its disk has too little space for the upgrade.
    """
    progress = None
    while True:
        with write() as connection:
            found = _not_newer(connection)
            if found.current:
                return
            if progress is None and (progress := packing.begun(connection, found.present)):
                report(progress)
            if upgrade_in_transaction(connection):
                return
            now = packing.moved(connection)
        if progress:
            report(progress := replace(progress, done=now))
        time.sleep(_PAUSE)


class LogProgress:
    """Logs what an upgrade is about to do, and every ten seconds how far it is."""

    def __init__(self) -> None:
        self._due = 0.0

    def __call__(self, progress: Progress) -> None:
        if not self._due:
            log.info("%s", progress.plan)
        elif time.monotonic() >= self._due:
            log.info("upgrading the database: %d of %d images", progress.done, progress.total)
        else:
            return
        self._due = time.monotonic() + _LOG_SECONDS


def upgrade_in_transaction(connection: Connection, to: str = "head") -> bool:
    """Run missing migrations in the caller's transaction, up to the end of a piece.

    Args:
        to: the number of the last migration to run.

    Returns:
        Whether it was the last piece.

    Raises:
        DatabaseError: the database was written by a newer tagonce.
    """
    lock_name(connection, _LOCK)
    found = _not_newer(connection)
    if found.current:
        return True
    if to == "head" and packing.is_missing(connection, found.present):
        if found.present != packing.LEVEL:
            _run(connection, packing.LEVEL)
        if packing.move_piece(connection):
            return False
    _run(connection, to)
    return True


def _run(connection: Connection, to: str) -> None:
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
    if found.interrupted:
        raise DatabaseError(
            "An upgrade of the database is not complete, and some of its images are still in the old tables. Run "
            "`tagonce migrate`, which goes on with it; `tag`, `enqueue` and `worker` do so too."
        )
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
