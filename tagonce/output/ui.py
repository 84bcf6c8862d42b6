"""What a person sees: results on standard output, everything else on standard error."""

import json
import sys
from collections.abc import Collection, Mapping
from typing import Any

import typer
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

from db.errors import Reason, SettingsError
from producer.references import path_or_uri
from producer.sources.name_filter import Names
from tagonce.settings import Settings

_NO_END = 100_000
"""Columns of what is no terminal: a program gets a line a row, however long a path is."""

output = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _NO_END)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

EXPLAINED = {
    Reason.MISSING: "the file or object is not there any more",
    Reason.DENIED: "we may not read it",
    Reason.CORRUPT: "the file is damaged",
    Reason.UNSUPPORTED: "no image, or of a format or a kind that is not read here",
    Reason.TOO_LARGE: "above the limit of pixels or bytes",
    Reason.TIMEOUT: "storage kept failing",
    Reason.CRASHED: "the worker died over it",
    Reason.NAN: "the model gives no number for it",
}


RETRYABLE = frozenset({Reason.DENIED, Reason.TIMEOUT, Reason.CRASHED})
"""What may go well next time although the file stays as it is."""
CHANGEABLE = {
    Reason.MISSING: "what is missing is tried by itself once a listing finds it again",
    Reason.CORRUPT: "a damaged or unsupported file is tried by itself once it is replaced",
    Reason.UNSUPPORTED: "a damaged or unsupported file is tried by itself once it is replaced",
    Reason.TOO_LARGE: "for what is too large, raise TAGONCE_MAX_PIXELS or TAGONCE_MAX_BYTES, then tagonce retry",
}
"""What helps with the others."""


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


def print_names(names: Names) -> None:
    """A line for each kind of names that were not taken."""
    for sentence in names.sentences():
        errors.print(printable(f"{sentence}."), style="dim", markup=False)


def say_model(before: Settings, config: Settings) -> Settings:
    """The second, after a line where its model is another one than before."""
    if config.model != before.model:
        errors.print(
            f"Model: {config.model}, as in the database. For another one: --model.",
            style="dim",
            markup=False,
        )
    return config


def agreed(question: str) -> bool:
    """Ask the person at the terminal.

    Raises:
        SettingsError: there is none.
    """
    if not sys.stdin.isatty():
        raise SettingsError("Nobody is there to be asked: repeat with --yes.")
    return typer.confirm(question, err=True)


def what_helps(reasons: Collection[Reason], options: str = "") -> str:
    """What to do about failures, in a sentence: to try again where that can help.

    Args:
        options: what `tagonce retry` needs here.
    """
    again = [reason for reason in Reason if reason in reasons and reason in RETRYABLE]
    parts = []
    if again:
        chosen = f" --reason {again[0]}" if len(again) == 1 and len(set(reasons)) > 1 else ""
        parts.append(f"Try again what was {' or '.join(again)}, after looking into it: tagonce retry{chosen}{options}")
    others = dict.fromkeys(CHANGEABLE[reason] for reason in Reason if reason in reasons and reason in CHANGEABLE)
    parts += [f"{words[0].upper()}{words[1:]}" for words in others]
    return ". ".join(parts) + "." if parts else ""


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
