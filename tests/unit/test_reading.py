"""Files of other programs (`tests/fixtures/reading`), each with its expected content in the file `.expected`."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from db.errors import SourceError
from db.ledger.models import Tag
from db.names import text_files
from db.names.match_images import ImageName, _name, by_path
from db.names.match_tags import TagIndex
from db.names.uris import file_path, file_uri
from db.policy.threshold_files import for_model, read_thresholds
from db.truth.load_truth import _TruthBuilder
from db.truth.truth_files import Entry, read_entries, read_sidecar
from producer.sources import references
from workers.models.tag_files import read_tags

FOLDER = Path(__file__).parent.parent / "fixtures" / "reading"
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file() and path.suffix != ".expected")
TAGS = [Tag(name) for name in ("cat", "long_hair", "solo", "saber_(fate)", "café", "長い髪")]


def the_name(written: str | dict[str, str]) -> str:
    """A name in an `.expected`; bytes that are not text are in hexadecimal."""
    if isinstance(written, dict):
        return os.fsdecode(bytes.fromhex(written["bytes"]))
    return os.fsdecode(bytes.fromhex(written[6:])) if written.startswith("bytes:") else written


def tags_of(entry: Entry) -> list[str] | None:
    """As the model spells them; others as they are written."""
    if entry.tags is None:
        return None
    index = TagIndex(TAGS)
    split = _TruthBuilder(index)._split(entry)
    return [TAGS[found[0]].name if (found := index.find(tag)) else tag for tag in split]


def image_of(reference: ImageName, uris: list[str]) -> str:
    """The first spelling of a reference that is an image."""
    for way, name in reference.ways:
        if found := [uri for uri in uris if way.parts >= 0 and _name(uri, way) == name]:
            (uri,) = found
            return uri
    raise AssertionError(reference)


def read_references(file: Path, expected: dict[str, Any]) -> list[str]:
    for name in map(the_name, expected["rows"]):
        (file.parent / name).parent.mkdir(exist_ok=True)
        (file.parent / name).write_bytes(b"x")
    found = list(references(str(file), null=expected.get("null", False)))
    assert all(one.version for one in found)
    return [os.path.relpath(file_path(one.uri), file.parent) for one in found]


def read_truth(file: Path, expected: dict[str, Any]) -> dict[str, list[str] | None]:
    # For C:\data in the list, or no folder: the images are elsewhere.
    uris = {file_uri(f"/elsewhere/{the_name(name)}"): name for name in expected["rows"]}
    return {uris[image_of(entry.reference, list(uris))]: tags_of(entry) for entry in read_entries(file)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_file_of_another_program_is_read(path: Path, tmp_path: Path) -> None:
    expected = json.loads(path.with_name(path.name + ".expected").read_text(encoding="utf-8"))
    file = Path(shutil.copy(path, tmp_path))
    rows = expected["rows"]
    match path.parent.name:
        case "references":
            assert read_references(file, expected) == [the_name(name) for name in rows]
        case "truths":
            assert read_truth(file, expected) == rows
        case "sidecars":
            assert tags_of(read_sidecar(file, by_path("x", tmp_path))) == rows
        case "thresholds":
            table = read_thresholds(file)
            policy, unknown = for_model(table.policy, TAGS)
            assert (policy.as_json(), unknown) == (rows, [])
            assert list(table.without) == expected.get("without", [])
        case "vocabularies":
            assert [tag.name for tag in read_tags(file)] == rows
        case other:
            raise AssertionError(other)


def test_a_field_may_be_longer_than_csv_allows_by_default(tmp_path: Path) -> None:
    caption = ", ".join(["cat"] * 100_000)
    (tmp_path / "t.csv").write_text(f'path,tags\na.png,"{caption}"\n')
    (entry,) = read_entries(tmp_path / "t.csv")
    assert len(entry.tags or ()) == 100_000


def test_what_is_found_under_another_name_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").touch()
    (tmp_path / "#x.png").touch()
    (tmp_path / "m.txt").write_text("sub\\a.png\nsub/a.png\n#x.png\n# a comment\n")
    assert len(list(references(str(tmp_path / "m.txt")))) == 2
    assert r"1 file found under another spelling, for example 'sub\\a.png' as" in caplog.text
    assert "1 line with the name of an image after #, for example '#x.png'" in caplog.text


def test_a_drive_is_one_folder_for_the_whole_list(tmp_path: Path) -> None:
    """The folder of the first path applies to all: a file of the same name in another folder is not used."""
    (tmp_path / "a.png").touch()
    (tmp_path / "m.txt").write_text("C:\\one\\a.png\nC:\\two\\a.png\n")
    assert [bool(one.version) for one in references(str(tmp_path / "m.txt"))] == [True, False]


def test_a_name_as_it_stands_wins(tmp_path: Path) -> None:
    """Backslashes and percent signs are legal in names on Linux."""
    (tmp_path / "sub").mkdir()
    for name in ("sub\\a.png", "sub/a.png", "a%20b.png", "a b.png"):
        (tmp_path / name).touch()
    (tmp_path / "m.txt").write_text("sub\\a.png\na%20b.png\n")
    found = [os.path.relpath(file_path(one.uri), tmp_path) for one in references(str(tmp_path / "m.txt"))]
    assert found == ["sub\\a.png", "a%20b.png"]


@pytest.mark.parametrize(
    "data",
    [
        b"cat\r\n", b"", b"\xef\xbb\xbfcat\n", b"\xff\xfec\0a\0t\0\n\0", b"\xfe\xff\0c\0a\0t", b"\xff\xfe\0\0c\0\0\0",
        b"c\0a\0t\0\r\0\n\0", "café\r".encode(),
    ],
)  # fmt: skip
def test_what_was_decoded_can_be_written_as_it_was(data: bytes) -> None:
    text, encoding = text_files.decode(data)
    assert text.strip() in {"cat", "c", "café", ""}
    assert encoding.encode(text) == data
    assert data.decode(encoding.codec).endswith(encoding.newline) or not text.endswith(("\r", "\n"))


@pytest.mark.parametrize("data", [b"caf\xe9", b"\xff\xfec"])
def test_what_is_no_unicode_is_not_decoded(data: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        text_files.decode(data)


def test_a_bad_quote_is_named_by_the_line_where_it_opens(tmp_path: Path) -> None:
    lines = ["sep=,\n", "a,b\n", '1,"two\n', 'lines"\n', '2,"never\n', "ends\n"]
    with pytest.raises(SourceError, match=r"^x, line 5: a quoted field begins here and never ends"):
        list(text_files.rows(lines, "x", SourceError, known=()))
