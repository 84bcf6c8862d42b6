"""Output of `tagonce search --truth`: human tags and predictions that differ, the largest differences first."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from heapq import nlargest
from itertools import islice

from rich.table import Column, Table
from rich.text import Text

from db.names.plural import counted
from db.truth.mistakes import Mistake
from tagonce.output import ui

SHOWN = 100
"""Rows of the table without a limit."""
WORDS = {"given": "given", "missing": "not given"}


def print_lines(mistakes: Iterable[Mistake], limit: int | None) -> None:
    """Print JSON lines, in the order of the images."""
    for mistake in islice(mistakes, limit):
        ui.print_json_line({name: value for name, value in asdict(mistake).items() if name != "image_id"})


def print_table(mistakes: Iterable[Mistake], limit: int | None) -> None:
    """Print a table of the largest differences, and the total number."""
    kinds = Counter[str]()
    shown = nlargest(limit or SHOWN, _counted(mistakes, kinds), key=_difference)
    if shown:
        ui.output.print(_table(shown))
    number = sum(kinds.values())
    ui.errors.print(
        f"{counted(number, 'tag')} to check: {kinds['given']:,} given, {kinds['missing']:,} not given"
        + (f". Showing the {counted(len(shown), 'largest difference')}." if len(shown) < number else ".")
    )


def _counted(mistakes: Iterable[Mistake], kinds: Counter[str]) -> Iterator[Mistake]:
    for mistake in mistakes:
        kinds[mistake.kind] += 1
        yield mistake


def _difference(mistake: Mistake) -> float:
    probability = mistake.probability or 0.0
    return 1 - probability if mistake.kind == "given" else probability


def _table(mistakes: Sequence[Mistake]) -> Table:
    table = Table(Column("image", overflow="fold"), "tag", "by people", "probability", box=None)
    for one in mistakes:
        probability = "below the floor" if one.probability is None else f"{one.probability:.4f}"
        table.add_row(ui.display_name(one.uri), Text(one.tag), WORDS[one.kind], probability)
    return table
