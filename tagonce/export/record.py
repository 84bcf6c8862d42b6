"""The record of an export, and the number of images that got each tag."""

import csv
import json
from collections.abc import Iterable
from typing import Any

from rich.table import Table
from rich.text import Text

from db.errors import StopError
from db.export.text import no_formula
from tagonce.export import destinations
from tagonce.output import ui

SHOWN = 40
"""Tags in the table of --frequencies -."""


def leave_record(out: str, record: dict[str, Any]) -> None:
    """Write the record of an export; if that fails, show it on standard error, since the export is written by now."""
    text = json.dumps(record, ensure_ascii=False, indent=2) + "\n"
    try:
        foreign = read_record(out) is None and destinations.digest(out) is not None
        why = f"{out} exists, is not the record of an export, and was not changed."
        if not foreign:
            destinations.write_text(out, text)
            return
    except StopError as error:
        why = str(error)
    ui.errors.print(f"{why} The record of this export, instead:\n{text}", markup=False)


def read_record(out: str) -> dict[str, Any] | None:
    """The record of an export; None if the file does not exist or is something else."""
    text = destinations.read_text(out)
    try:
        record = json.loads(text or "")
    except ValueError:
        return None
    return record if isinstance(record, dict) and {"tagonce", "exported_at"} <= record.keys() else None


def write_frequencies(out: str, counts: Iterable[tuple[str, str | None, int]]) -> None:
    """Write tag, category and number of images, most frequent first.

    Args:
        out: a CSV file, or `-` for a table on standard error.
        counts: (tag, category, images) in the model's order; equal tags are added up.

    Raises:
        StopError: the file cannot be written.
    """
    counted: dict[tuple[str, str | None], int] = {}
    for text, category, images in counts:
        if images:
            counted[text, category] = counted.get((text, category), 0) + images
    rows = sorted(counted.items(), key=lambda row: -row[1])  # stable: ties stay in the model's order
    if out != "-":
        with destinations.whole_text(out) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["tag", "category", "images"])
            writer.writerows((no_formula(text), category, images) for (text, category), images in rows)
        return
    table = Table("tag", "category", "images", box=None)
    for (text, category), images in rows[:SHOWN]:
        table.add_row(Text(text), Text(category or ""), f"{images:,}")
    ui.errors.print(table)
    if len(rows) > SHOWN:
        ui.errors.print(f"and {len(rows) - SHOWN:,} more: --frequencies FILE writes all.")
