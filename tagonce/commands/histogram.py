"""`tagonce histogram`: the distribution of a tag's probabilities."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.bar import Bar
from rich.table import Table

from db.names.plural import counted
from db.scope import Gone
from tagonce.options import parameters
from tagonce.output import ui

if TYPE_CHECKING:
    from db.read.histograms import Histogram

_WIDTH = 50
_MOST_BINS = 10_000
"""Scores are whole ten-thousandths."""


def command(
    tag: Annotated[str, typer.Argument(help="A tag of the model.", show_default=False)],
    bins: Annotated[int, typer.Option(min=1, max=_MOST_BINS, help="Number of equal bins from 0 to 1.")] = 20,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a plot: .png or .svg.")] = None,
    gone: parameters.Gone = Gone.EXCLUDE,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
    json: parameters.Json = False,
) -> None:
    """Show how the probabilities of a tag are distributed. A valley is a good threshold.

    Example: tagonce histogram long_hair
    """
    from db.ledger import models
    from db.read.histograms import histogram
    from db.scores import to_probability
    from tagonce import settings
    from tagonce.from_settings import stored, stored_model
    from tagonce.output import plots
    from tagonce.output.metric_tables import find_tag

    if plot:
        plots.check(plot)
    with stored(settings.load(database_url=database)) as opened, opened.read(gone=gone) as connection:
        row = stored_model(connection, model)
        tags = models.tag_names(connection, row.id)
        tag_id = find_tag(row, tag, tags)
        found = histogram(connection, row, tag_id, bins)
    name, floor = tags[tag_id].name, to_probability(row.floor)
    if plot:
        plots.save_histogram(plot, f"{name} by {row.name}", found)
    if json:
        parts = zip(found.edges, found.edges[1:], found.counts, strict=False)
        ui.print_json(
            {
                "model": {"id": row.id, "name": row.name},
                "tag": name,
                "images": found.images,
                "floor": floor,
                "below_floor": found.not_stored,
                "bins": [{"from": low, "to": high, "images": images} for low, high, images in parts],
            }
        )
        return
    ui.output.print(_table(found))
    ui.errors.print(
        f"{name} by {row.name}: {counted(found.images, 'image')}, {found.not_stored:,} of them below the floor of "
        f"{floor:g}." + (f"\nWritten: {plot}" if plot else ""),
        markup=False,
    )


def _table(found: "Histogram") -> Table:
    table = Table("probability", box=None)
    table.add_column("images", justify="right")
    table.add_column("")
    most = max(found.counts) or 1
    for low, high, images in zip(found.edges, found.edges[1:], found.counts, strict=False):
        table.add_row(f"{low:.4g} to {high:.4g}", f"{images:,}", Bar(most, 0, images, width=_WIDTH, color="cyan"))
    return table
