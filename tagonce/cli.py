"""The command line: which commands there are, and how an error reaches a person.

Commands import what they need when they run: `tagonce --help` waits for no torch, and a host without it can do all
that needs none.
"""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from db.errors import EXIT_FAILED, EXIT_USAGE, SettingsError, TagonceError, ThresholdError
from tagonce.commands import (
    calibrate,
    counts,
    doctor,
    enqueue,
    evaluate,
    export,
    failures,
    forget,
    histogram,
    index,
    migrate,
    models,
    predict,
    retry,
    review,
    search,
    status,
    tag,
    thresholds,
    worker,
)
from tagonce.output.ui import errors, printable

EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="tagonce",
    help="Tag once, threshold forever: tag probabilities of a multi-label model, kept in SQL.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for module in (
    *(tag, predict, enqueue, worker, status, doctor, failures, retry, forget, models, migrate),
    *(review, export, search, index, counts, histogram, evaluate, calibrate),
):
    # A query may begin with a minus, as an option does.
    kind = search.SearchCommand if module is search else None
    app.command(module.__name__.rpartition(".")[2], cls=kind)(module.command)
app.add_typer(thresholds.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tagonce {version('tagonce')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. Exit code 0, 1 (something failed), 2 (usage) or 130 (Ctrl-C)."""
    try:
        app()
    except (SettingsError, ThresholdError) as error:
        _stop(error, EXIT_USAGE)
    except TagonceError as error:
        _stop(error, EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _stop(error: TagonceError, code: int) -> None:
    errors.print("[bold red]error:[/]", end=" ")
    lines = [printable(line) for line in str(error).splitlines()]
    errors.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)
