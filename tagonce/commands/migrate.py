"""`tagonce migrate`: create or upgrade the tables, and nothing else."""

from tagonce.options import parameters
from tagonce.output import ui


def command(database: parameters.DatabaseUrl = None) -> None:
    """Create or upgrade the tables.

    `tag`, `enqueue` and `worker` do this too; run it if their database user may not create tables.

    Example: tagonce migrate --database postgresql://tagonce_owner@db/tagonce
    """
    from tagonce import settings
    from tagonce.from_settings import stored

    config = settings.load(database_url=database)
    with stored(config, create=True) as opened:
        ui.errors.print(f"{opened.label}: the tables are up to date.", markup=False, highlight=False)
