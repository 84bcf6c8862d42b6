"""`tagonce retry`: failures get another chance."""

from typing import Annotated

import typer

from db import results
from db.errors import Reason
from tagonce import parameters, settings, ui
from tagonce.commands.enqueue import send


def command(
    reason: Annotated[
        Reason | None, typer.Option("--reason", "-r", help="Only failures of this reason.", show_default=False)
    ] = None,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
    broker: parameters.BrokerUrl = None,
) -> None:
    """Clear failures, so that their images are pending again; with a broker, send them at once.

    Example: tagonce retry --reason timeout
    """
    from tagonce.wiring import stored, stored_model

    config = settings.load(database_url=database, broker_url=broker)
    with stored(config) as opened, opened.write() as connection:
        row = stored_model(connection, model)
        cleared = results.clear_failures(connection, row.id, reason)
    ui.errors.print(f"{cleared:,} failures cleared.")
    if not cleared:
        return
    if config.broker_url is None:
        ui.errors.print("Run the same `tagonce tag` again, or `tagonce enqueue --pending`, and they are tried anew.")
        return
    counts = send(config.model_copy(update={"model": str(row.id)}), [])
    ui.errors.print(f"{counts.sent:,} images sent.")
