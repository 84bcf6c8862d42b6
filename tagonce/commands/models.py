"""`tagonce models`: known models, and models with stored scores."""

from rich.table import Table
from rich.text import Text

from tagonce.options import parameters
from tagonce.output import ui


def command(database: parameters.DatabaseUrl = None, json: parameters.Json = False) -> None:
    """List known models, and those that the database has scores of.

    Example: tagonce models
    """
    from db.ledger import models
    from db.scores import to_probability
    from tagonce import settings
    from tagonce.from_settings import stored
    from workers.models.registry import KNOWN_MODELS

    config = settings.load(database_url=database)
    file = settings.database_file(config.database_url)
    present: list[models.Model] = []
    label = ""
    if file is None or file.exists():
        with stored(config) as opened, opened.read() as connection:
            present, label = models.every(connection), opened.label
    if json:
        ui.print_json(
            {
                "known": [known.name for known in KNOWN_MODELS],
                "stored": [
                    {"id": row.id, "name": row.name, "weights_sha256": row.weights_sha256}
                    | {"floor": to_probability(row.floor), "threshold": to_probability(row.default_threshold)}
                    for row in present
                ],
            }
        )
        return
    table = Table("name", "tags", "threshold", "description", title="Known by name", title_justify="left", box=None)
    for known in KNOWN_MODELS:
        table.add_row(known.name, f"{known.tags:,}", f"{known.default_threshold:g}", known.description)
    ui.output.print(table)
    ui.output.print("\nAlso: hf-hub:owner/name (a timm checkpoint), or a folder with weights and a tag list.\n")
    table = Table("id", "name", "weights", "floor", "threshold", title=Text(label), title_justify="left", box=None)
    for row in present:
        floor, threshold = to_probability(row.floor), to_probability(row.default_threshold)
        table.add_row(str(row.id), Text(row.name), row.weights_sha256[:8], f"{floor:g}", f"{threshold:g}")
    if present:
        ui.output.print(table)
