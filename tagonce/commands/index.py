"""`tagonce index`: an index by tag, so that searches need not scan all images."""

import time
from typing import Annotated

import typer

from tagonce.options import parameters
from tagonce.output import ui


def command(
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            "-t",
            help="Speed up searches at or above it; the lower it is, the larger the index. Default: the model's own.",
            show_default=False,
        ),
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Remove the index instead.")] = False,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
) -> None:
    """Make searches faster, for 70 to 400 bytes per image. Optional; one index per model, updated automatically.

    Example: tagonce index --threshold 0.2
    """
    from db.errors import SettingsError
    from db.scores import to_probability
    from db.search import tag_index as search_index
    from tagonce import settings
    from tagonce.from_settings import stored, stored_model
    from tagonce.options.policy_options import ThresholdOptions, resolve_policy

    if drop and threshold is not None:
        raise SettingsError("--drop removes the index whatever its threshold is: omit --threshold.")
    with stored(settings.load(database_url=database)) as opened:
        with opened.read() as connection:
            row = stored_model(connection, model)
            score = resolve_policy(connection, row, ThresholdOptions(threshold).changes).cut.lowest
        if drop:
            ui.errors.print(
                f"{row.name}: {'index removed' if search_index.drop(opened, row) else 'there is no index'}."
            )
            return
        started = time.monotonic()
        built = search_index.create(opened, row, score)
    took = f"built in {time.monotonic() - started:,.1f} s" if built else "already exists"
    ui.errors.print(f"{row.name}: index at {to_probability(score):g} and above {took}.", markup=False)
