"""`tagonce migrate`: the tables, made or brought forward, and nothing else."""

from tagonce import settings
from tagonce.options import parameters
from tagonce.output import ui


def command(database: parameters.DatabaseUrl = None) -> None:
    """Make the tables, or bring those of an older tagonce forward. `tag`, `enqueue` and `worker` do that by
    themselves: this is for databases whose user may not.

    Example: tagonce migrate --database postgresql://tagonce_owner@db/tagonce
    """
    from tagonce.from_settings import stored

    config = settings.load(database_url=database)
    with stored(config, create=True) as opened:
        ui.errors.print(f"{opened.label} has the tables of this tagonce.", markup=False, highlight=False)
