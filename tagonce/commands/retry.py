"""`tagonce retry`: clear failures, so that their images are tried again."""

from typing import TYPE_CHECKING, Annotated

import typer

from db.errors import Reason
from db.names.plural import counted
from tagonce.options import parameters
from tagonce.output import ui

if TYPE_CHECKING:
    from db.ledger.models import Model
    from tagonce.settings import Settings


def command(
    reason: Annotated[
        Reason | None, typer.Option("--reason", "-r", help="Only failures of this reason.", show_default=False)
    ] = None,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
    broker: parameters.BrokerUrl = None,
) -> None:
    """Clear failures, so that their images are pending again; with a broker, queue them at once.

    Example: tagonce retry --reason timeout
    """
    from db.ledger import results
    from tagonce import settings
    from tagonce.from_settings import stored, stored_model

    config = settings.load(database_url=database, broker_url=broker)
    with stored(config) as opened, opened.write() as connection:
        row = stored_model(connection, model)
        cleared = results.clear_failures(connection, row.id, reason)
    ui.errors.print(f"{counted(len(cleared), 'failure')} cleared.")
    if not cleared:
        return
    if config.broker_url is None:
        ui.errors.print("To try these images again, run the same `tagonce tag`, or `tagonce enqueue --pending`.")
        return
    _send(config, config.broker_url, row, cleared)
    ui.errors.print(f"{counted(len(cleared), 'image')} queued.")


def _send(config: "Settings", broker_url: str, model: "Model", image_ids: list[int]) -> None:
    from db.arrays.batches import batched
    from producer.queue import broker, chunks

    app = broker.create_app(broker_url, model.id, lease_seconds=config.lease_seconds, client_name="tagonce-producer")
    with chunks.sending(app, model.id, max_waiting=config.max_queue) as sender:
        for chunk in batched(image_ids, config.chunk_size):
            sender.send(chunk)
