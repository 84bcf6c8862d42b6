"""The README is true: its settings and commands are the program's."""

import re
from pathlib import Path

from tagonce.cli import COMMANDS, load
from tagonce.settings import Settings

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_every_setting_stands_in_the_table_with_its_default() -> None:
    for name, setting in Settings.model_fields.items():
        default = "" if setting.default is None else f"`{setting.default}`"
        assert f"| `TAGONCE_{name.upper()}` | {default} | {setting.description} |" in README


def test_the_table_names_no_setting_that_does_not_exist() -> None:
    named = set(re.findall(r"^\| `TAGONCE_(\w+)`", README, re.MULTILINE))
    assert named == {name.upper() for name in Settings.model_fields}


def test_every_command_stands_in_the_table_and_has_an_example_in_its_help() -> None:
    names = {name for panel in COMMANDS.values() for name in panel}
    assert set(re.findall(r"^\| `tagonce (\w+)", README, re.MULTILINE)) == names
    for name in names:
        assert f"Example: tagonce {name}" in load(name).help
