"""`tagonce forget`: delete images from the database, with everything stored about them."""

from typing import TYPE_CHECKING, Annotated

import typer

from db.errors import SettingsError
from db.names.plural import counted
from tagonce.options import parameters
from tagonce.output import ui

if TYPE_CHECKING:
    from db.ledger.forget import Plan


def command(
    places: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PLACE...]", help="A folder, a file, or s3://bucket/prefix; it need not exist.", show_default=False
        ),
    ] = None,
    gone: Annotated[bool, typer.Option("--gone", help="Only images marked as gone, see `tagonce tag --gone`.")] = False,
    under: parameters.Under = None,
    keep_labels: Annotated[
        bool,
        typer.Option("--keep-labels", help="Keep labels; they move to the next image with the same content."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted, and delete nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    database: parameters.DatabaseUrl = None,
    json: parameters.Json = False,
) -> None:
    """Delete images from the database, with predictions, failures and labels. Files are not touched.

    Shows what would be deleted, and asks for confirmation. If interrupted, run the same command again.

    Example: tagonce forget --gone --dry-run
    """
    from db.ledger import forget
    from tagonce import settings
    from tagonce.from_settings import stored
    from tagonce.options.under_option import uri_prefix
    from tagonce.output.progress import progress_bar

    named = [*(places or ()), *([under] if under is not None else [])]
    if not named and not gone:
        raise SettingsError("Nothing to forget: give a folder, a file or an s3:// prefix, or --gone.")
    with stored(settings.load(database_url=database)) as opened:
        with opened.read() as connection:
            where = forget.selection([uri_prefix(connection, place) for place in named], only_gone=gone)
            plan = forget.plan(connection, where)
        _show(plan, keep_labels=keep_labels)
        deleted = 0
        if plan.images and not dry_run and (yes or ui.confirm("Delete them from the database?")):
            with progress_bar() as bar:
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


def _show(plan: "Plan", *, keep_labels: bool) -> None:
    from producer.uris import path_or_uri

    if not plan.images:
        ui.errors.print("No images match; nothing is deleted.")
        return
    labels = f"{counted(plan.labels, 'label')} of {counted(plan.labelled, 'image')}"
    ui.errors.print(
        f"{counted(plan.images, 'image')}, with {counted(plan.predictions, 'prediction')}, "
        f"{counted(plan.failures, 'failure')} and {labels}"
        + (" (kept, with their images marked as gone):" if keep_labels and plan.labels else ":")
    )
    for uri in plan.examples:
        ui.errors.print(f"  {ui.printable(path_or_uri(uri))}", markup=False)
    if plan.images > len(plan.examples):
        ui.errors.print(f"  and {plan.images - len(plan.examples):,} more")
