"""`tagonce export`: captions and tables at a threshold, from what is stored."""

import os
import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from db import export
from db.errors import SettingsError
from db.export import Tagged
from producer.references import file_uri
from tagonce import parameters, settings, ui
from tagonce.sidecars import Sidecars


class Format(StrEnum):
    TXT = "txt"
    JSONL = "jsonl"


def command(
    threshold: parameters.Threshold = None,
    format_: Annotated[Format, typer.Option("--format", "-f", help="Sidecar files, or one file of JSON lines.")] = (
        Format.TXT
    ),
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder (txt) or file (jsonl). Default: beside the images; stdout."),
    ] = None,
    under: Annotated[
        str | None, typer.Option(help="Only images in this folder or under this s3:// prefix.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace sidecars that are there already.")] = False,
    separator: Annotated[str, typer.Option(help="Between two tags.")] = ", ",
    underscores: Annotated[bool, typer.Option("--underscores", help="Keep them instead of writing spaces.")] = False,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
) -> None:
    """Write the tags at a threshold. No model is needed: this is SQL over stored probabilities.

    Example: tagonce export --threshold 0.35 --out captions/
    """
    from tagonce.policy_options import policy_of, resolve_policy
    from tagonce.wiring import stored, stored_model

    config = settings.load(database_url=database)
    prefix = _prefix(under)
    with stored(config) as opened, opened.read() as connection:
        row = stored_model(connection, model)
        resolved = resolve_policy(connection, row, policy_of(threshold=threshold))
        ends = export.uri_range(connection, row, under=prefix)
        if ends is None:
            raise SettingsError(f"{row.name} has no predictions{f' under {under}' if under else ''} to export.")
        total = export.count_images(connection, row, under=prefix)
        found = export.tagged_images(connection, row, resolved.cut, under=prefix)
        with ui.progress_bar() as bar:
            rows = bar.track(found, total=total, description="Exporting")
            if format_ is Format.TXT:
                sidecars = Sidecars(out, ends=ends, overwrite=overwrite)
                sidecars.write_all(rows, lambda one: one.caption(separator=separator, underscores=underscores))
                summary = sidecars.summary
            else:
                _write_lines(
                    out, rows, lambda one: export.jsonl_line(one, separator=separator, underscores=underscores)
                )
                summary = f"{total:,} lines written to {out or 'standard output'}."
    ui.errors.print(f"{row.name} at {resolved.label}: {summary}")


def _prefix(under: str | None) -> str:
    if under is None or under.startswith(("s3://", "file://")):
        return under or ""
    path = os.path.abspath(under)  # noqa: PTH100 - as sources make paths absolute: `..` goes, links stay
    return file_uri(path) + ("/" if Path(path).is_dir() else "")


def _write_lines(out: Path | None, rows: Iterable[Tagged], line: Callable[[Tagged], str]) -> None:
    if out is None:
        for one in rows:
            sys.stdout.write(line(one) + "\n")
        return
    with export.whole_file(out) as file:
        for one in rows:
            file.write(line(one) + "\n")
