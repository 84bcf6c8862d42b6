"""Updates the index by tag, and shows a bar meanwhile."""

from db.database import Database
from db.ledger.models import Model
from tagonce.output.progress import progress_bar


def update_index(database: Database, model: Model, floor: int | None = None) -> int:
    """See `db.postings.build.update_postings`."""
    from db.postings.build import update_postings

    with progress_bar("blocks") as bar:
        task = bar.add_task("Indexing", total=None)
        return update_postings(
            database, model, floor=floor, advance=lambda done, total: bar.update(task, completed=done, total=total)
        )
