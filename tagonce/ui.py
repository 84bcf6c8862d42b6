"""What a person sees: results on standard output, everything else on standard error."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from db.errors import Reason
from producer.references import path_or_uri

output = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

EXPLAINED = {
    Reason.MISSING: "the file or object is not there any more",
    Reason.DENIED: "we may not read it",
    Reason.CORRUPT: "the file is damaged",
    Reason.UNSUPPORTED: "no image, or of a format or a kind that is not read here",
    Reason.TOO_LARGE: "above the limit of pixels or bytes",
    Reason.TIMEOUT: "storage kept failing",
    Reason.CRASHED: "the worker died over it",
}


class RateColumn(ProgressColumn):
    """Images a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} images/s", style="progress.data.speed")


def progress_bar() -> Progress:
    """A bar with images/s and the time that is left. Where no one watches, it prints nothing."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=errors,
        disable=not errors.is_terminal,
        speed_estimate_period=30,
    )


def print_failures(failed: Mapping[Reason, int]) -> None:
    """One line a reason, in words."""
    for reason, count in failed.items():
        errors.print(f"  {count:>8,}  [yellow]{reason}[/]  [dim]{EXPLAINED[reason]}[/]")


def name_of(uri: str) -> Text:
    """An image for a table."""
    return Text(printable(path_or_uri(uri)))


def printable(text: str) -> str:
    """For a terminal: bytes of a name that are no text, and control characters, which would command the terminal, show
    as question marks.
    """
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)


def print_json(value: Any) -> None:
    """For programs: one JSON document on standard output."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


def print_json_line(value: Any) -> None:
    """For programs: one of several JSON documents on standard output, each on a line of its own."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
