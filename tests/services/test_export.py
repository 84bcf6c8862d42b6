"""Exports: which images in which order, captions and lines, and files that are whole or not touched."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import insert

from db import export, images, results
from db.database import Database
from db.errors import SettingsError
from db.export import Tagged, whole_file
from db.images import Reference
from db.models import Model
from db.results import Prediction
from db.schema import images as image_table
from db.scores import Scores
from producer.references import file_uri
from tagonce.sidecars import Sidecars

Predicted = Callable[[Sequence[str]], None]

LOW_TO_HIGH = Scores(np.array([4, 2, 11], np.int16), np.array([200, 3500, 9000], np.int16))


@pytest.fixture
def predicted(database: Database, model: Model) -> Predicted:
    """Rows of these images, in the order given, with the same tags for all of them."""

    def save(uris: Sequence[str]) -> None:
        rows = [{"uri": uri, "version": "1", "added_at": datetime.now(UTC)} for uri in uris]
        with database.write() as connection:
            connection.execute(insert(image_table), rows)
            ids = images.pending_after(connection, model.id, 0, len(uris))
            done = [Prediction(one, "1", 1, 640, 480, "jpeg", b"h" * 32, LOW_TO_HIGH) for one in ids]
            results.save(connection, model.id, done, [])

    return save


def exported(database: Database, model: Model, score: int = 3500, under: str = "") -> list[Tagged]:
    with database.read() as connection:
        found = list(export.tagged_images(connection, model, score, under=under))
        assert export.count_images(connection, model, under=under) == len(found)
        ends = export.uri_range(connection, model, under=under)
    uris = sorted((one.uri for one in found), key=str.encode)
    assert ends == ((uris[0], uris[-1]) if uris else None)
    return found


# ── rows ──


def test_images_come_in_the_order_of_registration(database: Database, model: Model, predicted: Predicted) -> None:
    uris = ["s3://b/z", "s3://b/a", "file:///m", "s3://b/B"]
    predicted(uris)
    assert [one.uri for one in exported(database, model)] == uris


def test_more_rows_than_are_fetched_at_once(database: Database, model: Model, predicted: Predicted) -> None:
    uris = [f"s3://b/{number:05}" for number in range(export.ROWS_AT_ONCE * 2 + 1)]
    predicted(uris)
    assert [one.uri for one in exported(database, model)] == uris


def test_an_image_without_a_prediction_of_this_model_is_not_there(
    database: Database, model: Model, other_model: Model, predicted: Predicted
) -> None:
    predicted(["s3://b/done"])
    with database.write() as connection:
        images.register(connection, [Reference("s3://b/pending", "1", 1)], model.id)
    assert [one.uri for one in exported(database, model)] == ["s3://b/done"]
    assert exported(database, other_model) == []


NAMES = [
    "s3://b/a", "s3://b/a%", "s3://b/a%b/c", "s3://b/a_b/c", "s3://b/axb/c", "s3://b/日本/1", "s3://b/日本/🐈",
    "s3://b/日", "s3://b/A/c", "s3://c", "file:///b/a", "s3://b/a'b",
]  # fmt: skip


@pytest.mark.parametrize(
    "under",
    ["s3://b/a%", "s3://b/a%b/", "s3://b/a_b/", "s3://b/日本/", "s3://b/日", "s3://b/a", "s3://b/a'", "s3://", "x", ""],
)
def test_under_a_prefix_is_what_begins_with_it_to_the_letter(
    database: Database, model: Model, predicted: Predicted, under: str
) -> None:
    """No character of a prefix stands for others, and upper case is not lower case."""
    predicted(NAMES)
    expected = [uri for uri in NAMES if uri.startswith(under)]
    assert [one.uri for one in exported(database, model, under=under)] == expected


def test_a_caption_is_what_trainers_read(database: Database, model: Model, predicted: Predicted) -> None:
    predicted(["s3://b/1"])
    (one,) = exported(database, model, score=100)
    assert one.caption() == "tag 11, tag 02, tag 04"
    assert one.caption(separator=" ", underscores=True) == "tag_11 tag_02 tag_04"
    (one,) = exported(database, model, score=9001)
    assert one.caption() == ""


def test_a_line_of_json_holds_everything(database: Database, model: Model, predicted: Predicted) -> None:
    predicted(["s3://b/日本\n"])
    (one,) = exported(database, model)
    line = export.jsonl_line(one)
    assert "\n" not in line
    assert "日本" in line
    assert json.loads(line) == {
        "uri": "s3://b/日本\n",
        "width": 640,
        "height": 480,
        "caption": "tag 11, tag 02",
        "tags": {"tag_11": 0.9, "tag_02": 0.35},
    }


# ── whole files ──


def test_a_file_is_there_only_when_all_is_written(tmp_path: Path) -> None:
    """Folders are made; lines end as written and text is UTF-8, whatever the system prefers."""
    path = tmp_path / "new" / "folder" / "out.txt"
    with whole_file(path) as file:
        file.write("日本\n")
        assert not path.exists()
    assert path.read_bytes() == "日本\n".encode()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_block_that_fails_keeps_the_old_file_and_leaves_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(error), whole_file(path) as file:
        file.write("half")
        file.flush()
        raise error
    assert [one.name for one in tmp_path.iterdir()] == ["out.txt"]
    assert path.read_text() == "old"


_WRITE_ONE = """
import os, pathlib, sys
os.umask(int(sys.argv[1], 8))
from db.export import whole_file
with whole_file(pathlib.Path(sys.argv[2])) as file:
    file.write("x")
"""


@pytest.mark.parametrize(("umask", "mode"), [("022", 0o644), ("002", 0o664), ("077", 0o600)])
def test_who_may_read_a_file_is_the_umasks_choice(tmp_path: Path, umask: str, mode: int) -> None:
    """In a process of its own: the umask is one for all threads, and it is looked up once."""
    path = tmp_path / "out.txt"
    subprocess.run([sys.executable, "-c", _WRITE_ONE, umask, path], check=True, cwd=Path(__file__).parents[2])
    assert stat.S_IMODE(path.stat().st_mode) == mode


# ── sidecars ──


def tagged(uris: Sequence[str]) -> Iterator[Tagged]:
    return (Tagged(uri, 1, 1, {"a_b": 0.5}) for uri in uris)


def write(uris: Sequence[str], out: Path | None, *, overwrite: bool = False) -> Sidecars:
    ordered = sorted(uris, key=str.encode)
    sidecars = Sidecars(out, ends=(ordered[0], ordered[-1]), overwrite=overwrite)
    sidecars.write_all(tagged(uris), Tagged.caption)
    return sidecars


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_captions_go_beside_local_images(tmp_path: Path) -> None:
    """Under the same name with another suffix, whatever is in the name: bytes that are no UTF-8 too."""
    paths = [tmp_path / "a b.c.jpg", tmp_path / "sub" / "100%é.png", tmp_path / os.fsdecode(b"\xff.gif")]
    uris = [file_uri(str(path)) for path in paths]
    assert write(uris, None).written == 3
    assert all(path.with_suffix(".txt").read_text() == "a b\n" for path in paths)


def test_captions_of_images_in_s3_need_a_folder(tmp_path: Path) -> None:
    for uris in (["s3://b/a.jpg"], ["file:///a.jpg", "s3://b/a.jpg"]):
        with pytest.raises(SettingsError, match="in S3: say with --out"):
            write(uris, None)


@pytest.mark.parametrize(
    ("uris", "expected"),
    [
        (["s3://b/cats/1.jpg", "s3://b/cats/old/2.jpg"], {"1.txt", "old/2.txt"}),
        (["s3://b/cats/1.jpg", "s3://b/catsup/2.jpg"], {"cats/1.txt", "catsup/2.txt"}),
        (["s3://b/cats/1.jpg"], {"1.txt"}),
        (["s3://b/1.jpg", "s3://c/1.jpg"], {"b/1.txt", "c/1.txt"}),
        (["s3://b/%41 日.jpg", "s3://b/#?.png"], {"%41 日.txt", "#?.txt"}),
        (["s3://b/noext", "s3://b/.hidden.jpg"], {"noext.txt", ".hidden.txt"}),
        (["s3://b//1.jpg", "s3://b//d//2.jpg"], {"1.txt", "d/2.txt"}),
        (["file:///a/x%20y/1.jpg", "file:///a/x%20z/2.jpg"], {"x y/1.txt", "x z/2.txt"}),
        (["file:///a/%C3%A9.jpg", "file:///a/%C3%AA.jpg"], {"é.txt", "ê.txt"}),
        (["file:///a/1.jpg", "s3://b/c/1.jpg"], {"file/a/1.txt", "s3/b/c/1.txt"}),
    ],
)
def test_captions_in_a_folder_keep_what_is_below_the_common_part(
    tmp_path: Path, uris: list[str], expected: set[str]
) -> None:
    sidecars = write(uris, tmp_path / "out")
    assert (sidecars.written, sidecars.refused) == (len(uris), 0)
    assert files_in(tmp_path) == {f"out/{name}" for name in expected}


@pytest.mark.parametrize(
    "uri",
    ["s3://b/../../up.jpg", "s3://b/x/../../../up.jpg", "s3://b//etc/cron.d/x", "s3://b/..", "s3://b/.", "s3://b/"],
)
def test_a_key_that_leads_out_of_the_folder_is_refused(tmp_path: Path, uri: str) -> None:
    """Keys are strangers' text."""
    sidecars = write(["s3://b/0.jpg", uri], tmp_path / "deep" / "down" / "out")
    assert files_in(tmp_path) == {"deep/down/out/0.txt"}
    assert sidecars.refused == 1
    assert "1 refused: their names lead out of the folder" in sidecars.summary


def test_a_file_reference_with_escaped_dots_is_refused_too(tmp_path: Path) -> None:
    sidecars = write(["file:///a/0.jpg", "file:///a/..%2F..%2Fup.jpg"], tmp_path / "d" / "out")
    assert files_in(tmp_path) == {"d/out/0.txt"}
    assert sidecars.refused == 1


def test_captions_that_are_there_are_left_unless_told_otherwise(tmp_path: Path) -> None:
    """A person may have edited them."""
    (tmp_path / "1.txt").write_text("mine")
    uris = ["s3://b/1.jpg", "s3://b/2.jpg"]
    sidecars = write(uris, tmp_path)
    assert (sidecars.written, sidecars.kept) == (1, 1)
    assert "1 were there already and were left (--overwrite replaces them)" in sidecars.summary
    assert (tmp_path / "1.txt").read_text() == "mine"
    assert write(uris, tmp_path, overwrite=True).written == 2
    assert (tmp_path / "1.txt").read_text() == "a b\n"


def test_a_key_too_long_for_a_file_name_is_refused(tmp_path: Path) -> None:
    """The other captions are written all the same. The suffix counts: `日` 84 times and `.txt` is one byte too much."""
    names = ["x" * 300 + ".jpg", "d" * 300 + "/1.jpg", "日" * 84 + ".jpg", "日" * 83 + ".jpg"]
    sidecars = write(["s3://b/0.jpg", *(f"s3://b/{name}" for name in names)], tmp_path)
    assert files_in(tmp_path) == {"0.txt", "日" * 83 + ".txt"}
    assert sidecars.refused == 3
    assert "lead out of the folder, or are too long" in sidecars.summary


def test_two_images_with_one_stem_do_not_overwrite_each_other(tmp_path: Path) -> None:
    """Trainers look for cat.txt, whatever the image is; that one of them has none is said."""
    ends = (file_uri(str(tmp_path / "cat.jpg")), file_uri(str(tmp_path / "cat.png")))
    sidecars = Sidecars(None, ends=ends, overwrite=True)
    sidecars.write_all([Tagged(uri, 1, 1, {f"tag_{number}": 0.9}) for number, uri in enumerate(ends)], Tagged.caption)
    assert (tmp_path / "cat.txt").read_text() == "tag 0\n"
    assert sidecars.written == sidecars.shared == 1
    assert "would share" in sidecars.summary
