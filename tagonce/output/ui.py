"""Terminal output: results on standard output, everything else on standard error."""

import json
import sys
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from db.errors import Reason, SettingsError

if TYPE_CHECKING:
    from producer.sources.name_filter import NameFilter
    from tagonce.settings import Settings

_NO_END = 100_000
"""Width if standard output is not a terminal: a table prints one line per row, however long a path is."""

output = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _NO_END)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

EXPLAINED = {
    Reason.MISSING: "the file or object does not exist any more",
    Reason.DENIED: "permission to read it is missing",
    Reason.CORRUPT: "the file is damaged",
    Reason.UNSUPPORTED: "not an image, or a format that is not supported",
    Reason.TOO_LARGE: "more pixels or bytes than the limit",
    Reason.TIMEOUT: "storage kept failing",
    Reason.CRASHED: "the worker died while processing it",
    Reason.NAN: "the model returns NaN for it",
}
RETRYABLE = frozenset({Reason.DENIED, Reason.TIMEOUT, Reason.CRASHED})
"""Reasons that may succeed with the same file."""
CHANGEABLE = {
    Reason.MISSING: "missing images are tried again once a listing finds them",
    Reason.CORRUPT: "damaged or unsupported files are tried again once they are replaced",
    Reason.UNSUPPORTED: "damaged or unsupported files are tried again once they are replaced",
    Reason.TOO_LARGE: "for too large images, raise TAGONCE_MAX_PIXELS or TAGONCE_MAX_BYTES, then run tagonce retry",
}
"""Advice on the other reasons."""


def print_failures(failed: Mapping[Reason, int]) -> None:
    """Print one line per reason, with an explanation."""
    for reason, count in failed.items():
        errors.print(f"  {count:>8,}  [yellow]{reason}[/]  [dim]{EXPLAINED[reason]}[/]")


def print_names(names: "NameFilter") -> None:
    """Print one line for each kind of skipped names."""
    for sentence in names.sentences():
        errors.print(printable(f"{sentence}."), style="dim", markup=False)


def print_model(before: "Settings", config: "Settings") -> None:
    """Print the model of `config` if `before` has another one."""
    if config.model != before.model:
        errors.print(
            f"Model: {config.model}, as in the database. To choose another: --model.", style="dim", markup=False
        )


def confirm(question: str) -> bool:
    """Ask for confirmation.

    Raises:
        SettingsError: standard input is not a terminal.
    """
    if not sys.stdin.isatty():
        raise SettingsError("Cannot ask for confirmation: standard input is not a terminal. Repeat with --yes.")
    return typer.confirm(question, err=True)


def failure_advice(reasons: Collection[Reason], options: str = "") -> str:
    """Advice on failures, in sentences; empty without reasons.

    Args:
        options: for `tagonce retry`.
    """
    again = [reason for reason in Reason if reason in reasons and reason in RETRYABLE]
    parts = []
    if again:
        chosen = f" --reason {again[0]}" if len(again) == 1 and len(set(reasons)) > 1 else ""
        parts.append(f"After fixing the cause, try {' or '.join(again)} images again: tagonce retry{chosen}{options}")
    others = dict.fromkeys(CHANGEABLE[reason] for reason in Reason if reason in reasons and reason in CHANGEABLE)
    parts += [f"{words[0].upper()}{words[1:]}" for words in others]
    return ". ".join(parts) + "." if parts else ""


def display_name(uri: str) -> Text:
    """Path or uri of an image, printable, for a table."""
    from producer.uris import path_or_uri

    return Text(printable(path_or_uri(uri)))


def printable(text: str) -> str:
    """Replace control characters, which a terminal would obey, and bytes that are not text by question marks."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


def print_json_line(value: Any) -> None:
    """Print one JSON document on a line of standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
