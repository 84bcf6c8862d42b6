"""The command line: its commands, and how errors are printed.

A command's module is imported when that command is run: `tagonce --help` needs neither SQLAlchemy nor Celery, and a
host without torch can run every command that needs none.
"""

import sys
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from db.errors import EXIT_FAILED, EXIT_USAGE, SettingsError, TagonceError, ThresholdError

EXIT_INTERRUPTED = 130

COMMANDS = {
    "Tag images": {
        "tag": "Tag images on this machine; no server is needed.",
        "predict": "Show the tags of single images, without a database.",
        "enqueue": "Register images and queue those without a result. Waits while the queue is full.",
        "worker": "Tag queued images until SIGTERM or Ctrl-C. Run one process per GPU.",
    },
    "Operate": {
        "status": "Show progress, failures by reason, images/s, time left, and where workers spend their time.",
        "doctor": "Check settings, database, broker, clock, storage, model, device and disks, and suggest fixes.",
        "failures": "List images that could not be tagged, the latest failure first.",
        "retry": "Clear failures, so that their images are pending again; with a broker, queue them at once.",
        "forget": "Delete images from the database, with predictions, failures and labels. Files are not touched.",
        "models": "List known models and families, and those that the database has scores of.",
        "migrate": "Create or upgrade the tables.",
    },
    "Use the stored scores": {
        "review": "Review stored scores in a browser: move thresholds, see the effect, label tags, save a profile.",
        "export": "Write the tags that thresholds keep. No model is needed: this is SQL over stored probabilities.",
        "search": "Find images by their tags, in the query syntax of boorus; each tag may have its own threshold.",
        "index": "Bring the index by tag up to date, for about 320 bytes per image. Searches and counts read it.",
        "counts": "Count the images of each tag, the most frequent tag first.",
        "histogram": "Show how the probabilities of a tag are distributed. A valley is a good threshold.",
        "evaluate": "Compare stored scores with human tags: precision, recall, F1 and informedness at many thresholds.",
        "calibrate": "Find the best threshold of each tag from human tags, and save them as a profile.",
        "thresholds": "Manage threshold profiles: named and versioned, for one model each, used with --profile.",
    },
}
"""Heading in `tagonce --help`, name, and the first paragraph of the command's help.

The module of a command is `tagonce.commands.NAME`. It has a function `command`, or a Typer app `app`.
"""


@cache
def load(name: str) -> Any:
    """Import a command. Returns what Typer makes of it: a `TyperCommand`, or a `TyperGroup` of subcommands."""
    module = import_module(f"tagonce.commands.{name}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False)
        app.command(name)(module.command)
    return typer.main.get_command(app)


class LazyGroup(TyperGroup):
    """Lists the commands of `COMMANDS` by their names and short help, and imports the one that is run or completed."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for panel, commands in COMMANDS.items():
            for name, short_help in commands.items():
                self.add_command(TyperCommand(name, help=short_help, rich_help_panel=panel))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Replace the listed command by the real one."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, load(args[0]) if listed else None, rest


app = typer.Typer(
    name="tagonce",
    cls=LazyGroup,
    help="Tag once, threshold forever: tag probabilities of a multi-label model, kept in SQL.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

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
    from tagonce.output.ui import errors, printable

    errors.print("[bold red]error:[/]", end=" ")
    lines = [printable(line) for line in str(error).splitlines()]
    errors.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)
