"""The command line lists its commands without importing them, and imports the one that is run."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from db.database import open_database
from db.ledger import models
from tagonce import cli, commands
from tests.fixtures.command import Outcome

HEAVY = ("alembic", "boto3", "celery", "kombu", "numpy", "redis", "sqlalchemy")

RUN_AND_LIST_MODULES = """
import json, sys
sys.argv = ["tagonce", *sys.argv[1:]]
from tagonce.cli import main
try:
    main()
finally:
    json.dump(sorted(sys.modules), sys.stderr)
"""


def imported_by(*arguments: str) -> set[str]:
    """Names of all modules after `tagonce ...` in an interpreter of its own."""
    command = [sys.executable, "-c", RUN_AND_LIST_MODULES, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(done.stderr))


def commands_in(modules: set[str]) -> set[str]:
    return {name for name in modules if name.startswith("tagonce.commands.")}


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_no_command_and_nothing_large(option: str) -> None:
    modules = imported_by(option)
    assert {*HEAVY, "pydantic"} & modules == set()
    assert commands_in(modules) == set()


@pytest.mark.parametrize("command", ["status", "enqueue", "worker", "export"])
def test_help_of_a_command_imports_that_command_only(command: str) -> None:
    modules = imported_by(command, "--help")
    assert {*HEAVY, "pydantic_settings"} & modules == set()
    assert commands_in(modules) == {f"tagonce.commands.{command}"}


def test_status_without_a_broker_imports_neither_alembic_nor_a_queue(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tagonce.db'}"
    database = open_database(url)
    with database.write() as connection:
        models.register(
            connection,
            name="tiny",
            weights_sha256="00",
            spec={},
            tag_list=[models.Tag("cat")],
            floor=100,
            default_threshold=5000,
        )
    database.close()
    modules = imported_by("status", "--json", "--database", url)
    assert "sqlalchemy" in modules
    assert {"alembic", "boto3", "celery", "kombu", "redis"} & modules == set()


def test_every_command_is_listed_with_the_first_paragraph_of_its_help() -> None:
    listed = {name: text for panel in cli.COMMANDS.values() for name, text in panel.items()}
    first_paragraphs = {}
    for name in listed:
        paragraph, _, _rest = inspect.cleandoc(cli.load(name).help).partition("\n\n")
        first_paragraphs[name] = " ".join(paragraph.split())
    assert listed == first_paragraphs
    (folder,) = commands.__path__
    assert set(listed) == {path.stem for path in Path(folder).glob("[!_]*.py")}


def test_a_misspelt_command_is_answered_with_a_suggestion(invoke: Callable[..., Outcome]) -> None:
    refused = invoke("sttus")
    assert refused.code == 2
    assert "No such command 'sttus'. Did you mean 'status'?" in refused.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tagonce ca", ["calibrate"]),
        ("tagonce status --w", ["--watch"]),
        ("tagonce thresholds s", ["save", "show"]),
    ],
)
def test_a_shell_completes_commands_and_their_options(
    tagonce: Callable[..., Outcome], words: str, expected: list[str]
) -> None:
    position = str(len(words.split()) - 1)
    done = tagonce(_TAGONCE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=position)
    assert done.out.split() == expected
