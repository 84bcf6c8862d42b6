"""`tagonce migrate`: create or upgrade the tables, and nothing else."""

from tagonce.options import parameters
from tagonce.output import ui


def command(database: parameters.DatabaseUrl = None) -> None:
    """Create or upgrade the tables.

    `tag`, `enqueue` and `worker` do this too; run it if their database user may not create tables, or to see how far
    the upgrade of a large SQLite database is.

    Example: tagonce migrate --database postgresql://tagonce_owner@db/tagonce
    """
    from tagonce import settings
    from tagonce.from_settings import stored
    from tagonce.output.upgrade_display import UpgradeDisplay

    config = settings.load(database_url=database)
    display = UpgradeDisplay()
    with stored(config, create=True, display=display) as opened:
        ui.errors.print(f"{opened.label}: the tables are up to date.", markup=False, highlight=False)
        if display.last:
            ui.errors.print(
                f"The file keeps its size: new images use the space of the old rows. To return it to the disk instead, "
                f"stop everything that uses the database and run: sqlite3 {opened.file} vacuum. That needs free disk "
                "space of about two thirds of the file.",
                markup=False,
                highlight=False,
            )
