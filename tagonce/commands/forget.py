"""`tagonce forget`: take images out of the database, with all that is stored of them."""

from typing import Annotated

import typer

from db.errors import SettingsError
from db.ledger.forget import Plan
from db.names.plural import counted
from producer.references import path_or_uri
from tagonce import settings
from tagonce.options import parameters
from tagonce.output import ui


def command(
    places: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PLACE...]", help="A folder, a file, or s3://bucket/prefix, there or not.", show_default=False
        ),
    ] = None,
    gone: Annotated[
        bool, typer.Option("--gone", help="Only what is marked as gone, see `tagonce tag --gone`.")
    ] = False,
    under: parameters.Under = None,
    keep_labels: Annotated[
        bool,
        typer.Option(
            "--keep-labels", help="What people judged stays, and goes along to the next image of the same content."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    database: parameters.DatabaseUrl = None,
    json: parameters.Json = False,
) -> None:
    """Delete images from the database: predictions, failures and labels too. The files themselves are left alone.

    Example: tagonce forget --gone --dry-run

    Shows what would go, and asks. Interrupted, the same command goes on.
    """
    from db.ledger import forget
    from tagonce.from_settings import stored
    from tagonce.options.under_option import uri_prefix

    named = [*(places or ()), *([under] if under is not None else [])]
    if not named and not gone:
        raise SettingsError("Say what to forget: a folder, a file or an s3:// prefix, or --gone.")
    with stored(settings.load(database_url=database)) as opened:
        with opened.read() as connection:
            where = forget.selection([uri_prefix(connection, place) for place in named], only_gone=gone)
            plan = forget.plan(connection, where)
        _show(plan, keep_labels=keep_labels)
        deleted = 0
        if plan.images and not dry_run and (yes or ui.agreed("Delete them from the database?")):
            with ui.progress_bar() as bar:
                task = bar.add_task("Forgetting", total=plan.images)
                deleted = forget.forget(
                    opened, where, keep_labels=keep_labels, on_progress=lambda images: bar.advance(task, images)
                )
            ui.errors.print(f"{counted(deleted, 'image')} deleted from the database.")
    if json:
        ui.print_json(
            {
                "images": plan.images,
                "predictions": plan.predictions,
                "failures": plan.failures,
                "labels": plan.labels,
                "labelled_images": plan.labelled,
                "examples": list(plan.examples),
                "deleted": deleted,
            }
        )


def _show(plan: Plan, *, keep_labels: bool) -> None:
    if not plan.images:
        ui.errors.print("There is nothing to forget.")
        return
    labels = f"{counted(plan.labels, 'label')} of {counted(plan.labelled, 'image')}"
    ui.errors.print(
        f"{counted(plan.images, 'image')}, with {counted(plan.predictions, 'prediction')}, "
        f"{counted(plan.failures, 'failure')} and {labels}"
        + (", which stay, as do their images, marked as gone:" if keep_labels and plan.labels else ":")
    )
    for uri in plan.examples:
        ui.errors.print(f"  {ui.printable(path_or_uri(uri))}", markup=False)
    if plan.images > len(plan.examples):
        ui.errors.print(f"  and {plan.images - len(plan.examples):,} more")
