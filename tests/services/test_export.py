"""Exports: the images and their order, files that are complete or unchanged, and sidecars."""

import errno
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

from db.database import Database
from db.errors import SettingsError, StopError
from db.export.tagged_images import Tagged, count_images, tagged_images, uri_range
from db.ledger import images, models, results
from db.ledger.images import Reference
from db.ledger.models import Model
from db.ledger.results import Prediction
from db.names.uris import file_uri
from db.policy.policies import Policy, resolve
from db.read.tag_batches import IMAGES_AT_ONCE
from db.schema import images as image_table
from db.scores import Scores
from producer.storage.s3_client import s3_client
from tagonce.export.choices import Existing
from tagonce.export.merge_captions import merged
from tagonce.export.relative_names import common_folder
from tagonce.export.sidecars import Sidecars, beside
from tagonce.export.small_files import LocalFiles, small_files
from tagonce.whole_files import whole_file

Predicted = Callable[[Sequence[str]], None]

LOW_TO_HIGH = Scores(np.array([4, 2, 11], np.int16), np.array([200, 3500, 9000], np.int16))


@pytest.fixture
def predicted(database: Database, model: Model) -> Predicted:
    """Rows of these images, in this order, all with the same tags."""

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
        cut = resolve(model, models.tag_names(connection, model.id), Policy(score))
        found = list(tagged_images(connection, model, cut, under=under))
        uris = sorted((one.uri for one in found), key=str.encode)
        assert count_images(connection, model, under=under) == len(uris)
        assert uri_range(connection, model, under=under) == ((uris[0], uris[-1]) if uris else ("", ""))
    return found


# ── rows ──


def test_images_come_in_the_order_of_registration(database: Database, model: Model, predicted: Predicted) -> None:
    uris = ["s3://b/z", "s3://b/a", "file:///m", "s3://b/B"]
    predicted(uris)
    assert [one.uri for one in exported(database, model)] == uris


def test_more_rows_than_are_fetched_at_once(database: Database, model: Model, predicted: Predicted) -> None:
    uris = [f"s3://b/{number:05}" for number in range(IMAGES_AT_ONCE * 2 + 1)]
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
    """A prefix has no wildcards, and its case is significant."""
    predicted(NAMES)
    expected = [uri for uri in NAMES if uri.startswith(under)]
    assert [one.uri for one in exported(database, model, under=under)] == expected


def test_an_image_has_its_tags_by_falling_probability(database: Database, model: Model, predicted: Predicted) -> None:
    predicted(["s3://b/1"])
    assert exported(database, model, 100) == [
        Tagged("s3://b/1", 640, 480, {"tag_11": 0.9, "tag_02": 0.35, "tag_04": 0.02})
    ]
    assert exported(database, model, 9001) == [Tagged("s3://b/1", 640, 480, {})]


# ── whole files ──


def test_a_file_is_there_only_when_all_is_written(tmp_path: Path) -> None:
    """Folders are created. Line ends are unchanged and text is UTF-8, regardless of the system's defaults."""
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


def test_a_full_disk_is_a_sentence_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    with (
        pytest.raises(StopError, match="Cannot write .*out.txt: No space left on device. --out names"),
        whole_file(path),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert [one.name for one in tmp_path.iterdir()] == ["out.txt"]
    assert path.read_text() == "old"


_WRITE_ONE = """
import os, pathlib, sys
os.umask(int(sys.argv[1], 8))
from tagonce.whole_files import whole_file
with whole_file(pathlib.Path(sys.argv[2])) as file:
    file.write("x")
"""


@pytest.mark.parametrize(("umask", "mode"), [("022", 0o644), ("002", 0o664), ("077", 0o600)])
def test_who_may_read_a_file_is_the_umasks_choice(tmp_path: Path, umask: str, mode: int) -> None:
    """In a separate process: all threads share the umask, and it is read once."""
    path = tmp_path / "out.txt"
    subprocess.run([sys.executable, "-c", _WRITE_ONE, umask, path], check=True, cwd=Path(__file__).parents[2])
    assert stat.S_IMODE(path.stat().st_mode) == mode


# ── sidecars ──


def write(uris: Sequence[str], out: Path | None, existing: Existing = Existing.SKIP, text: str = "a b") -> Sidecars:
    first, last = min(uris, key=str.encode), max(uris, key=str.encode)
    if out is None:
        beside(first, last)
    folder = None if out is None else common_folder(first, last)
    with (
        small_files(None if out is None else str(out)) as files,
        Sidecars(files, folder, extension=".txt", existing=existing) as sidecars,
    ):
        sidecars.write(uris, [text] * len(uris), [text.split(", ")] * len(uris))
    return sidecars


def some(sidecars: Sidecars) -> dict[str, int]:
    """The counts of the outcome that are not 0."""
    return {name: count for name, count in sidecars.counts.items() if count}


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_captions_go_beside_local_images(tmp_path: Path) -> None:
    """Under the same name with another suffix, for any name, also one that is not UTF-8."""
    paths = [tmp_path / "a b.c.jpg", tmp_path / "sub" / "100%é.png", tmp_path / os.fsdecode(b"\xff.gif")]
    uris = [file_uri(str(path)) for path in paths]
    assert write(uris, None).counts["written"] == 3
    assert all(path.with_suffix(".txt").read_text() == "a b\n" for path in paths)


def test_captions_of_images_in_s3_need_a_folder(tmp_path: Path) -> None:
    for uris in (["s3://b/a.jpg"], ["file:///a.jpg", "s3://b/a.jpg"]):
        with pytest.raises(SettingsError, match="in S3: name with --out"):
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
    assert (sidecars.counts["written"], sidecars.counts["refused"]) == (len(uris), 0)
    assert files_in(tmp_path) == {f"out/{name}" for name in expected}


@pytest.mark.parametrize(
    "uri",
    ["s3://b/../../up.jpg", "s3://b/x/../../../up.jpg", "s3://b//etc/cron.d/x", "s3://b/..", "s3://b/.", "s3://b/"],
)
def test_a_key_that_leads_out_of_the_folder_is_refused(tmp_path: Path, uri: str) -> None:
    """Keys are untrusted text."""
    sidecars = write(["s3://b/0.jpg", uri], tmp_path / "deep" / "down" / "out")
    assert files_in(tmp_path) == {"deep/down/out/0.txt"}
    assert sidecars.counts["refused"] == 1
    assert "1 refused: their names lead out of the folder" in sidecars.summary


@pytest.mark.parametrize("uri", ["file:///a/..%2F..%2Fup.jpg", "file:///a/b%00/c.jpg"])
def test_a_file_reference_with_escaped_dots_or_a_nul_is_refused_too(tmp_path: Path, uri: str) -> None:
    sidecars = write(["file:///a/0.jpg", uri], tmp_path / "d" / "out")
    assert files_in(tmp_path) == {"d/out/0.txt"}
    assert sidecars.counts["refused"] == 1


def test_captions_that_are_there_are_left_unless_told_otherwise(tmp_path: Path) -> None:
    """A person may have edited the files."""
    (tmp_path / "1.txt").write_text("mine")
    uris = ["s3://b/1.jpg", "s3://b/2.jpg"]
    sidecars = write(uris, tmp_path)
    assert (sidecars.counts["written"], sidecars.counts["left"]) == (1, 1)
    assert "1 exist and were not changed (--overwrite replaces them, --merge adds to them)" in sidecars.summary
    assert (tmp_path / "1.txt").read_text() == "mine"
    assert some(write(uris, tmp_path, Existing.OVERWRITE)) == {"written": 1, "replaced": 1, "unchanged": 1}
    assert (tmp_path / "1.txt").read_text() == "a b\n"


def test_a_key_too_long_for_a_file_name_is_refused(tmp_path: Path) -> None:
    """The other captions are written. The suffix counts: 84 times `日` and `.txt` is one byte too long."""
    names = ["x" * 300 + ".jpg", "d" * 300 + "/1.jpg", "日" * 84 + ".jpg", "日" * 83 + ".jpg"]
    sidecars = write(["s3://b/0.jpg", *(f"s3://b/{name}" for name in names)], tmp_path)
    assert files_in(tmp_path) == {"0.txt", "日" * 83 + ".txt"}
    assert sidecars.counts["refused"] == 3
    assert "lead out of the folder, or are too long" in sidecars.summary


def test_two_images_with_one_stem_do_not_overwrite_each_other(tmp_path: Path) -> None:
    """Trainers look for cat.txt, regardless of the image's suffix. The image without a caption is reported."""
    uris = [file_uri(str(tmp_path / "cat.jpg")), file_uri(str(tmp_path / "cat.png"))]
    with Sidecars(LocalFiles(None), None, extension=".txt", existing=Existing.OVERWRITE) as sidecars:
        sidecars.write(uris, ["tag 0", "tag 1"])
    assert (tmp_path / "cat.txt").read_text() == "tag 0\n"
    assert sidecars.counts["written"] == sidecars.counts["shared"] == 1
    assert f"1 have the file name of another image ({tmp_path}/cat.txt, of {tmp_path}/cat.png too)" in sidecars.summary


def test_sidecars_that_keep_the_whole_name_share_none(tmp_path: Path) -> None:
    """As Hydrus expects them, with any extension."""
    uris = [file_uri(str(tmp_path / "cat.jpg")), file_uri(str(tmp_path / "cat.png"))]
    with Sidecars(LocalFiles(None), None, extension=".tags", whole_name=True) as sidecars:
        sidecars.write(uris, ["x", "y"])
    assert files_in(tmp_path) == {"cat.jpg.tags", "cat.png.tags"}
    assert some(sidecars) == {"written": 2, "new": 2}


def test_merging_adds_what_is_not_there_and_writes_where_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text("Mine, a_b\n")
    (tmp_path / "2.txt").write_text("c, a b")
    uris = ["s3://b/1.jpg", "s3://b/2.jpg", "s3://b/3.jpg"]
    sidecars = write(uris, tmp_path, Existing.MERGE, "a b, c")
    assert (sidecars.counts["written"], sidecars.counts["unchanged"]) == (2, 1)
    assert "1 have all these tags" in sidecars.summary
    texts = [(tmp_path / f"{number}.txt").read_text() for number in (1, 2, 3)]
    assert texts == ["Mine, a_b, c\n", "c, a b", "a b, c\n"]


@pytest.mark.parametrize(
    ("there", "texts", "separator", "expected"),
    [
        ("a, b\n", ["b", "c"], ", ", "a, b, c\n"),
        ("a, b", ["c"], ", ", "a, b, c"),
        ("a, b", ["a", "b"], ", ", None),
        ("", ["a"], ", ", "a\n"),
        (" \n", ["a"], ", ", "a\n"),
        ("", [], ", ", None),
        ("Long_Hair", ["long hair"], ", ", None),
        (r"saber \(fate\)", ["saber_(fate)"], ", ", None),
        ("(cat:0.9)", ["(cat:0.8)", "dog"], ", ", "(cat:0.9), dog"),
        ("a,b,", ["c"], ",", "a,b,c"),
        ("a,  b ,c", ["b", "d"], ", ", "a,  b ,c, d"),
        ("a\r\nb\r\n", ["b", "c"], "\n", "a\r\nb\r\nc\r\n"),
        ("a\nb", ["c", "d"], "\n", "a\nb\nc\nd"),
        ("a\nb\n", ["c"], ", ", "a, c\nb\n"),
        ("a cat\r\n\r\nA big cat.\r\n", ["dog"], ", ", "a cat, dog\r\n\r\nA big cat.\r\n"),
        ("\n a\n", ["b"], ", ", "\n a, b\n"),
        ("a b", ["b", "c"], " ", "a b c"),
        ("a, say hi", ["say, hi", "say hi, a"], ", ", "a, say hi, say, hi"),
        ("abc ", ["abc_", "x "], ", ", "abc , x "),
        ("caf\udce9", ["x"], ", ", "caf\udce9, x"),
    ],
)
def test_a_merged_caption(there: str, texts: list[str], separator: str, expected: str | None) -> None:
    """The existing text is unchanged, and no tag is added in a second spelling."""
    assert merged(there, texts, separator) == expected


def test_merging_keeps_bytes_that_are_no_utf_8(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_bytes(b"caf\xe9\n")
    write(["s3://b/1.jpg"], tmp_path, Existing.MERGE)
    assert (tmp_path / "1.txt").read_bytes() == b"caf\xe9, a b\n"


# ── sidecars in S3 ──


@pytest.fixture
def objects(bucket: str) -> Iterator[Callable[[], dict[str, bytes]]]:
    """The objects in the bucket, with their content."""
    client = s3_client()

    def look() -> dict[str, bytes]:
        found = client.list_objects_v2(Bucket=bucket).get("Contents", [])
        return {one["Key"]: client.get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in found}

    yield look
    client.close()


def write_to_s3(bucket: str, uris: Sequence[str], existing: Existing, text: str = "a b") -> Sidecars:
    folder = common_folder(min(uris), max(uris))
    with (
        small_files(f"s3://{bucket}/captions") as files,
        Sidecars(files, folder, extension=".txt", existing=existing) as sidecars,
    ):
        sidecars.write(uris, [text] * len(uris), [text.split(", ")] * len(uris))
    return sidecars


def test_captions_under_a_prefix_in_s3(bucket: str, objects: Callable[[], dict[str, bytes]]) -> None:
    """The names, and the three options for existing files, are the same as in a folder."""
    uris = [f"s3://b/x/{name}" for name in ("日 本.jpg", "sub/2.jpg", "../up.jpg", "d" * 1100 + ".jpg", "sub/2.png")]
    done = write_to_s3(bucket, uris, Existing.SKIP)
    assert some(done) == {"written": 2, "new": 2, "shared": 1, "refused": 2}
    assert f"2 captions written to s3://{bucket}/captions/" in done.summary
    assert objects() == {"captions/日 本.txt": b"a b\n", "captions/sub/2.txt": b"a b\n"}
    uris = ["s3://b/x/sub/2.jpg", "s3://b/x/3.jpg"]
    assert write_to_s3(bucket, uris, Existing.SKIP, "new").counts["left"] == 1
    assert write_to_s3(bucket, uris, Existing.MERGE, "c, A_B").counts["written"] == 2
    assert objects() == {
        "captions/日 本.txt": b"a b\n",
        "captions/sub/2.txt": b"a b, c\n",
        "captions/3.txt": b"new, c, A_B\n",
    }
    assert write_to_s3(bucket, uris, Existing.OVERWRITE, "x").counts["written"] == 2
    assert objects()["captions/3.txt"] == b"x\n"


def test_a_path_that_is_no_utf_8_is_refused_in_s3(bucket: str) -> None:
    uris = [file_uri("/a/1.jpg"), file_uri(os.fsdecode(b"/a/\xff.jpg"))]
    assert some(write_to_s3(bucket, uris, Existing.SKIP)) == {"written": 1, "new": 1, "refused": 1}


def test_many_captions_are_put_at_the_same_time(bucket: str) -> None:
    uris = [f"s3://b/{number}.jpg" for number in range(100)]
    assert write_to_s3(bucket, uris, Existing.SKIP).counts["written"] == 100
    assert write_to_s3(bucket, uris, Existing.SKIP).counts["left"] == 100


def test_a_bucket_that_is_not_there_is_known_at_once(s3_settings: None) -> None:
    with pytest.raises(StopError, match="There is no bucket 'nowhere-1': check --out"):
        write_to_s3("nowhere-1", ["s3://b/1.jpg"], Existing.SKIP)


def test_storage_that_does_not_answer_is_a_sentence(s3_settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(StopError, match="Cannot write to bucket 'b': the S3 endpoint .* does not answer"):
        write_to_s3("b", ["s3://b/1.jpg"], Existing.SKIP)
