"""`tagonce failures`: images that could not be tagged, and why."""

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from db.errors import Reason
from db.names.plural import counted
from db.scope import Gone
from tagonce.options import parameters
from tagonce.output import ui

if TYPE_CHECKING:
    from db.ledger.failures import Failed

SHOWN = 100
"""Rows of the table without --limit."""


def command(
    reason: Annotated[
        Reason | None, typer.Option("--reason", "-r", help="Only failures of this reason.", show_default=False)
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="At most this many, the latest ones.", show_default=False)
    ] = None,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="Print paths only, each terminated by NUL, for `xargs -0`.")
    ] = False,
    under: parameters.Under = None,
    gone: parameters.Gone = Gone.EXCLUDE,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
    json: parameters.Json = False,
) -> None:
    """List images that could not be tagged, the latest failure first.

    Writes nothing.

    Example: tagonce failures --reason corrupt
    """
    from db.ledger import failures, run_progress
    from tagonce import settings
    from tagonce.from_settings import stored, stored_model
    from tagonce.options.under_option import uri_prefix

    as_table = not (json or null)
    with stored(settings.load(database_url=database)) as opened, opened.read(gone=gone) as connection:
        row = stored_model(connection, model)
        prefix = uri_prefix(connection, under)
        most = limit or (SHOWN if as_table else None)
        found = failures.latest(connection, row.id, most, reason=reason, under=prefix)
        if as_table:
            shown = list(found)
            total = sum(run_progress.failures_by_reason(connection, row.id, reason=reason, under=prefix).values())
        else:
            for one in found:
                ui.print_json_line(_as_json(one)) if json else _print_path(one)
            return
    if shown:
        ui.output.print(_table(shown))
    ui.errors.print(
        f"{row.name}: {counted(total, 'failure')}"
        + (f"; showing the latest {len(shown):,}." if len(shown) < total else "."),
        markup=False,
    )
    if advice := ui.failure_advice({one.reason for one in shown}):
        ui.errors.print(advice, markup=False)


def _print_path(one: "Failed") -> None:
    from producer.uris import path_or_uri

    # As bytes: names of files need not be valid text.
    sys.stdout.buffer.write(os.fsencode(path_or_uri(one.uri)) + b"\0")


def _table(found: "list[Failed]") -> Table:
    table = Table(Column("image", overflow="fold"), "reason", "attempts", "when", "detail", box=None)
    for one in found:
        when = one.failed_at.astimezone().strftime("%Y-%m-%d %H:%M")
        detail = Text(ui.printable(one.detail))
        table.add_row(ui.display_name(one.uri), one.reason, f"{one.attempts:,}", when, detail)
    return table


def _as_json(one: "Failed") -> dict[str, Any]:
    return {
        "uri": one.uri,
        "reason": one.reason,
        "detail": one.detail,
        "attempts": one.attempts,
        "failed_at": one.failed_at.isoformat(),
    }
