"""`tagonce index`: the images of each tag, so that searches and counts need not read the scores of all images."""

import time
from typing import Annotated

import typer

from db.names.plural import counted
from tagonce.options import parameters
from tagonce.output import ui


def command(
    floor: Annotated[
        float | None,
        typer.Option(
            "--floor",
            help="Index probabilities at or above it, and serve all thresholds from it on. The lower it is, the larger "
            "the index. Default: as before, or 0.1.",
            show_default=False,
        ),
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Remove the index instead.")] = False,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
) -> None:
    """Bring the index by tag up to date, for about 320 bytes per image. Searches and counts read it.

    `tagonce tag` and idle workers do so by themselves. Images tagged since then are read without the index. It can be
    interrupted at any moment, and continues with the next run.

    Example: tagonce index --floor 0.05
    """
    from db.errors import SettingsError
    from db.postings.build import drop_postings, floor_of
    from db.scores import to_probability, to_score
    from tagonce import settings
    from tagonce.from_settings import stored, stored_model
    from tagonce.output.index_bar import update_index

    if drop and floor is not None:
        raise SettingsError("--drop removes the whole index: omit --floor.")
    wanted = None if floor is None else to_score(floor, what="--floor")
    with stored(settings.load(database_url=database)) as opened:
        with opened.read() as connection:
            row = stored_model(connection, model)
        if drop:
            removed = drop_postings(opened, row)
            ui.errors.print(f"{row.name}: {'index removed' if removed else 'there is no index'}.", markup=False)
            return
        if wanted is not None and wanted != floor_of(row, wanted):
            raise SettingsError(
                f"--floor {floor:g} is below the floor of {row.name}, {to_probability(row.floor):g}: lower "
                "probabilities are not stored."
            )
        begun = time.monotonic()
        built = update_index(opened, row, wanted)
    took = f"{counted(built, 'block')} built in {time.monotonic() - begun:,.1f} s" if built else "already up to date"
    ui.errors.print(f"{row.name}: index {took}.", markup=False)
