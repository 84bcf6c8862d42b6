"""The documents are true: their settings, commands, options and links exist."""

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tagonce import cli
from tests.documents import DOCUMENTS, ROOT, SETTINGS, settings_table, table_below

COMMANDS: dict[str, Any] = {name: cli.load(name) for panel in cli.COMMANDS.values() for name in panel}
SETTINGS_PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
COMMANDS_PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
HINT = "Regenerate it: python -m tests.documents"

BLOCK = re.compile(r"^```(?:console|bash|sh)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(tagonce [a-z][^`]*)`")
LINK = re.compile(r"\]\((?!https?://)([^)\s]*)\)")
VARIABLE = re.compile(r"`(TAGONCE_[A-Z0-9_]+)")
OF_TESTS = {"TAGONCE_TEST_BROWSER", "TAGONCE_TEST_DEVICE"}

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def test_every_setting_is_in_the_table_with_its_default_and_its_description() -> None:
    assert table_below(SETTINGS_PAGE, SETTINGS) == settings_table(), HINT


def test_every_command_is_in_the_table_and_has_an_example_in_its_help() -> None:
    assert set(re.findall(r"^\| `tagonce (\w+)", COMMANDS_PAGE, re.MULTILINE)) == set(COMMANDS)
    for name, command in COMMANDS.items():
        assert f"Example: tagonce {name}" in (command.help or "")


def command_lines(text: str) -> Iterator[str]:
    """Every `tagonce ...` of a document: in code blocks, with or without a prompt, and in the text."""
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.match(r"(?:\$ )?(?:.*\| )?(?:\S*/)?(tagonce [a-z].*)", line):
                yield found[1]
    yield from INLINE.findall(BLOCK.sub("", text).replace("\n", " "))


def wrong_in(line: str) -> str:
    """What is wrong with a command line; empty where it names a command and options that exist."""
    words = shlex.split(line, comments=True)[1:]
    command: Any = COMMANDS.get(words[0])
    if command is None:
        return f"{line}: there is no command {words[0]!r}"
    arguments = list(itertools.takewhile(lambda word: word not in {"|", ">"}, words[1:]))
    if arguments and arguments[0] in getattr(command, "commands", {}):
        command = command.commands[arguments[0]]
    options = {"--help", *(name for option in command.params for name in (*option.opts, *option.secondary_opts))}
    unknown = [word for word in arguments if word.startswith("--") and word.partition("=")[0] not in options]
    return f"{line}: there is no option {', '.join(unknown)}" if unknown else ""


@each_document
def test_commands_in_a_document_exist_with_their_options(document: Path) -> None:
    wrong = [found for line in command_lines(document.read_text(encoding="utf-8")) if (found := wrong_in(line))]
    assert not wrong, "\n".join(wrong)


def test_a_command_or_an_option_that_does_not_exist_is_found() -> None:
    text = "`tagonce tag --gone keep` or `tagonce tagg`\n\n```\n$ tagonce export --treshold 0.3   # a --slip\n```\n"
    assert [wrong_in(line) for line in command_lines(text)] == [
        "tagonce export --treshold 0.3   # a --slip: there is no option --treshold",
        "",
        "tagonce tagg: there is no command 'tagg'",
    ]


@each_document
def test_settings_in_a_document_exist(document: Path) -> None:
    named = set(VARIABLE.findall(document.read_text(encoding="utf-8"))) - {"TAGONCE_"} - OF_TESTS
    assert named <= set(VARIABLE.findall(settings_table()))


def headings(document: Path) -> set[str]:
    """Anchors of a document, as GitHub makes them."""
    found = re.findall(r"^#+ (.*)", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@each_document
def test_links_lead_to_files_and_headings(document: Path) -> None:
    broken = []
    for link in LINK.findall(document.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in headings(target)):
            broken.append(link)
    assert not broken


@each_document
def test_files_in_a_document_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"`((?:db|workers|producer|tagonce|tests|bench|deploy|docs)/[\w./-]+)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []
