"""`tagonce enqueue`: the producer."""

from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from db.errors import SettingsError
from db.names.plural import counted
from tagonce.options import parameters
from tagonce.options.if_gone import IfGone
from tagonce.output import ui

if TYPE_CHECKING:
    from producer.enqueue import Enqueued
    from producer.sources.name_filter import NameFilter
    from tagonce.settings import Settings


def command(
    sources: parameters.OptionalSources = None,
    pending: Annotated[
        bool,
        typer.Option("--pending", help="Queue all registered images without a result, e.g. after Redis lost data."),
    ] = False,
    if_idle: Annotated[
        bool,
        typer.Option(
            "--if-idle", help="With --pending: do nothing while chunks are queued or being processed. For cron."
        ),
    ] = False,
    gone: parameters.IfGone = None,
    yes: parameters.EvenMost = False,
    column: parameters.Column = None,
    null: parameters.Null = False,
    exclude: parameters.Exclude = None,
    no_default_excludes: parameters.NoDefaultExcludes = False,
    all_names: parameters.AllNames = False,
    model: parameters.ModelName = None,
    database: parameters.DatabaseUrl = None,
    broker: parameters.BrokerUrl = None,
    chunk_size: parameters.ChunkSize = None,
    json: parameters.Json = False,
) -> None:
    """Register images and queue those without a result. Waits while the queue is full.

    Example: tagonce enqueue s3://photos/2024/ --broker redis://queue:6379/0 --database postgresql://tagonce@db/tagonce
    """
    from producer.sources.name_filter import NameFilter
    from tagonce import settings

    if bool(sources) == pending:
        raise SettingsError("Nothing to enqueue: give one or more sources, or --pending.")
    if pending and gone is IfGone.MARK:
        raise SettingsError("--gone mark needs sources: images that their listing lacks are marked.")
    if if_idle and not pending:
        raise SettingsError("--if-idle needs --pending.")
    config = settings.load(model=model, database_url=database, broker_url=broker, chunk_size=chunk_size)
    names = NameFilter(exclude or (), default_excludes=not no_default_excludes, all_names=all_names)
    if_gone = gone or IfGone.KEEP
    counts, marked = send(
        config,
        sources or [],
        column=column,
        null=null,
        if_idle=if_idle,
        names=names,
        gone=if_gone,
        even_most=yes,
    )
    ui.print_names(names)
    if json:
        ui.print_json({"seen": counts.seen, "sent": counts.sent} | ({"gone": marked} if if_gone is IfGone.MARK else {}))
    else:
        ui.errors.print(
            f"{counted(counts.seen, 'image')} seen, {counts.sent:,} sent, {counts.seen - counts.sent:,} already had a "
            "result. Watch with: tagonce status --watch"
        )


def send(
    config: "Settings",
    sources: list[str],
    *,
    column: str | None = None,
    null: bool = False,
    if_idle: bool = False,
    names: "NameFilter | None" = None,
    gone: IfGone = IfGone.KEEP,
    even_most: bool = False,
) -> "tuple[Enqueued, int]":
    """Queue the images of the sources; without sources, all pending images of the database.

    Args:
        if_idle: send nothing while chunks are queued or being processed.
        names: selects names, and counts those that are skipped.
        gone, even_most: see `tagonce.options.gone_option`.

    Returns:
        The counts, and how many images were marked as gone.
    """
    from db.ledger import deliveries, models, workers
    from producer.enqueue import Enqueued, enqueue, enqueue_pending
    from producer.queue import broker, chunks
    from producer.sources import references
    from tagonce.from_settings import stored, stored_model, with_stored_model
    from tagonce.options.gone_option import GoneOption
    from tagonce.output.progress import progress_bar
    from tagonce.output.upgrade_display import UpgradeDisplay

    # First, so that a missing source is an error before anything is written.
    found = chain.from_iterable([references(source, column=column, null=null, names=names) for source in sources])
    broker_url = config.need_broker()
    config = with_stored_model(config, files=False)
    with stored(config, create=True, display=UpgradeDisplay()) as database:
        with database.read() as connection:
            model = stored_model(connection, config.model)
        app = broker.create_app(
            broker_url, model.id, lease_seconds=config.lease_seconds, client_name="tagonce-producer"
        )
        broker.check(app)
        if if_idle:
            if not broker.depth(app, model.id).empty:
                return Enqueued(), 0
            # After Redis was flushed, only the database knows what workers are processing: there are deliveries, and a
            # worker has written since its lease would have expired.
            since = datetime.now(UTC) - timedelta(seconds=config.lease_seconds)
            with database.read() as connection:
                if deliveries.any_counted(connection) and workers.any_since(connection, since, model.id):
                    return Enqueued(), 0
                known, others = models.every(connection), workers.any_since(connection, since)
            if not others and all(broker.depth(app, one.id).empty for one in known):
                with database.write() as connection:
                    deliveries.forget_all(connection)
        if_any_gone = GoneOption(database, sources, gone, even_most=even_most)
        with progress_bar() as bar:
            task = bar.add_task("Registering", total=None)

            def show(counts: Enqueued) -> None:
                bar.update(task, completed=counts.seen, description=f"Registering, {counts.sent:,} sent")

            def waiting(depth: int) -> None:
                bar.update(task, description=f"Waiting: {depth:,} chunks are queued, the limit is {config.max_queue:,}")

            with chunks.sending(app, model.id, max_waiting=config.max_queue, on_wait=waiting) as sender:
                if sources:
                    sent = enqueue(
                        database,
                        sender,
                        found,
                        model_id=model.id,
                        chunk_size=config.chunk_size,
                        seen=if_any_gone.seen,
                        on_progress=show,
                    )
                else:
                    sent = enqueue_pending(
                        database, sender, model_id=model.id, chunk_size=config.chunk_size, on_progress=show
                    )
        return sent, if_any_gone.mark()
