"""Exports destroy nothing. Existing files stay unless an option allows it, and names do not depend on the selection."""

import codecs
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from db.database import Database
from db.errors import SettingsError
from db.names.uris import file_uri
from db.schema import files, images
from producer.storage.s3_client import s3_client
from tagonce.export.choices import Existing, Format
from tagonce.export.merge_captions import understood
from tagonce.whole_files import whole_file
from tests.services.test_export_formats import Store, add_local, fill, record


@pytest.fixture
def small(database: Database) -> Store:
    """s3://b/x y/00000.jpg and one image in each of three other folders."""
    return fill(database, 4)


OVER = {"existing": Existing.OVERWRITE}
MERGE = {"existing": Existing.MERGE}
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


@pytest.fixture
def pictures(small: Store, tmp_path: Path) -> Callable[..., list[Path]]:
    """Create files of these names, registered and tagged."""

    def make(*names: str) -> list[Path]:
        paths = [tmp_path / "pics" / name for name in names]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(PNG + path.name.encode())
        add_local(small, [str(path) for path in paths])
        return paths

    return make


def under(folder: Path) -> dict[str, Any]:
    return {"under": file_uri(str(folder)) + "/"}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def counts_of(folder: Path) -> dict[str, int]:
    found = record(folder / "tagonce-export.json")["counts"]
    return {name: count for name, count in found.items() if count and name not in {"images", "tagged", "tags"}}


# ── names ──


def test_names_are_the_same_whichever_images_are_exported(small: Store, tmp_path: Path) -> None:
    """Exports of two folders into one destination do not overwrite each other's names."""
    out = tmp_path / "out"
    for folder in ("x y", "日本"):
        small.export(Format.TXT, out, under=f"s3://b/{folder}/", **OVER)
    assert files_of(out).keys() == {"x y/00000.txt", "日本/00001.txt", "tagonce-export.json"}
    assert counts_of(out) == {"written": 1, "new": 1}
    assert [one["under"] for one in record(out / "tagonce-export.json")["earlier"]] == ["s3://b/x y/"]
    small.export(Format.TXT, tmp_path / "one", where=images.c.uri == small.uris[0])
    assert files_of(tmp_path / "one").keys() == {"x y/00000.txt", "tagonce-export.json"}


def test_a_root_of_ones_own(small: Store, tmp_path: Path) -> None:
    here = {"under": "s3://b/x y/"}
    small.export(Format.TXT, tmp_path / "a", root="s3://b/x y/", **here)
    assert "00000.txt" in files_of(tmp_path / "a")
    small.export(Format.TXT, tmp_path / "b", root="s3://", **here)
    assert "b/x y/00000.txt" in files_of(tmp_path / "b")
    small.export(Format.IMAGEFOLDER, tmp_path / "c", root="s3://b/x y/", **here)
    assert '"file_name": "00000.jpg"' in (tmp_path / "c" / "metadata.jsonl").read_text()
    with pytest.raises(SettingsError, match="s3://b/%41/00003.jpg is not below --root s3://b/x y/: name a folder"):
        small.export(Format.TXT, tmp_path / "a", root="s3://b/x y/")


def test_captions_keep_their_names_when_images_elsewhere_are_added(small: Store, tmp_path: Path) -> None:
    """The record of the folder has the root. Images outside the root are refused, not written elsewhere."""
    small.export(Format.TXT, tmp_path / "out")
    before = files_of(tmp_path / "out").keys()
    add_local(small, [str(tmp_path / "new.jpg")])
    small.export(Format.TXT, tmp_path / "out", under="s3://", **OVER)
    assert files_of(tmp_path / "out").keys() == before
    with pytest.raises(SettingsError, match="have names relative to s3://b/, and file://.*/new.jpg is not below it"):
        small.export(Format.TXT, tmp_path / "out", **OVER)
    assert files_of(tmp_path / "out").keys() == before


# ── images ──


@pytest.mark.parametrize("given", [{}, OVER, MERGE])
def test_a_registered_image_with_the_name_of_a_caption_stays(
    small: Store, pictures: Callable[..., list[Path]], given: dict[str, Any]
) -> None:
    """Lists may have images with any suffix. `real/b.txt` is an image through a link: `b.txt` is the same file."""
    a, text, _b, linked = pictures("a.jpg", "a.TXT", "real/b.jpg", "link/c.txt")
    text.rename(text.with_suffix(".txt"))
    with small.database.write() as connection:
        lower = file_uri(str(text.with_suffix(".txt")))
        query = update(images).where(images.c.uri == file_uri(str(text)))
        connection.execute(query.values(uri=lower))
    linked.rename(a.parent / "real" / "b.txt")
    linked.symlink_to(a.parent / "real" / "b.txt")
    said = small.export(Format.TXT, None, **under(a.parent), **given)
    assert text.with_suffix(".txt").read_bytes() == PNG + b"a.TXT"
    assert (a.parent / "real" / "b.txt").read_bytes() == PNG + b"c.txt"
    assert f"refused: the file is an image of the database ({a.parent}/" in said


def test_a_registered_object_with_the_name_of_a_caption_stays(small: Store, bucket: str) -> None:
    client = s3_client()
    keys = ["p/1.jpg", "p/1.txt", "p/2.jpg"]
    for key in keys:
        client.put_object(Bucket=bucket, Key=key, Body=PNG)
    with small.database.write() as connection:
        rows = [{"uri": f"s3://{bucket}/{key}", "version": "1", "added_at": datetime.now(UTC)} for key in keys]
        connection.execute(insert(images), rows)
    with small.database.write() as connection:
        connection.execute(update(images).where(images.c.uri == small.uris[0]).values(uri=f"s3://{bucket}/p/1.png"))
    said = small.export(
        Format.TXT, f"s3://{bucket}/p", root=f"s3://{bucket}/p/", under=f"s3://{bucket}/p/1.png", **OVER
    )
    assert said.endswith("1 refused: the file is an image of the database (p/1.txt).")
    assert client.get_object(Bucket=bucket, Key="p/1.txt")["Body"].read() == PNG
    client.close()


@pytest.mark.parametrize("given", [OVER, MERGE])
def test_what_is_no_text_stays(small: Store, pictures: Callable[..., list[Path]], given: dict[str, Any]) -> None:
    """A file that is not text is no caption: an unregistered image, a link to an image, or a pipe."""
    made = pictures("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    folder = made[0].parent
    (folder / "a.txt").write_bytes(PNG)
    (folder / "b.txt").symlink_to(folder / "b.jpg")
    os.link(folder / "c.jpg", folder / "c.txt")
    os.mkfifo(folder / "d.txt")
    said = small.export(Format.TXT, None, **under(folder), **given)
    assert "0 captions written" in said
    assert (
        f"4 exist and were not changed: they are not text, or their encoding lacks a character ({folder}/a.txt)" in said
    )
    assert (folder / "b.txt").is_symlink()
    assert all(path.read_bytes() == PNG + path.name.encode() for path in made)
    assert (folder / "a.txt").read_bytes() == PNG


def test_two_names_of_one_file_are_one_file(small: Store, pictures: Callable[..., list[Path]], tmp_path: Path) -> None:
    """Here through a link to a folder. File systems that ignore case have the same effect."""
    made = pictures("a/1.jpg", "b/1.jpg")
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    (out / "b").symlink_to(out / "a")
    root = file_uri(str(tmp_path / "pics")) + "/"
    said = small.export(Format.TXT, out, root=root, prepend=("x",), **under(tmp_path / "pics"), **OVER)
    assert f"1 have the file name of another image ({out}/b/1.txt, of {made[1]} too)" in said
    assert counts_of(out) == {"written": 1, "new": 1, "shared": 1}


@pytest.mark.parametrize("format_", [Format.JSONL, Format.CSV, Format.KOHYA, Format.PARQUET])
def test_one_file_never_replaces_an_image(
    small: Store, pictures: Callable[..., list[Path]], tmp_path: Path, format_: Format
) -> None:
    """An image known by its suffix, as a registered file, through a link, or as a copy of one."""
    (image,) = pictures("scan")
    with pytest.raises(SettingsError, match=r"new\.PNG has the suffix of an image"):
        small.export(format_, tmp_path / "new.PNG", **OVER)
    with small.database.write() as connection:
        content = hashlib.sha256(image.read_bytes()).digest()
        of_image = select(images.c.id).where(images.c.uri == file_uri(str(image))).scalar_subquery()
        changed = connection.execute(update(files).where(files.c.image_id == of_image).values(sha256=content))
        assert changed.rowcount == 1
    (tmp_path / "link").symlink_to(image)
    (tmp_path / "copy").write_bytes(image.read_bytes())
    for out in (image, tmp_path / "link", tmp_path / "copy"):
        with pytest.raises(
            SettingsError, match=f"{out.name} is an image of the database, and exports never replace images"
        ):
            small.export(format_, out, **OVER)
        assert out.read_bytes() == PNG + b"scan"


# ── what others wrote ──


def test_a_file_is_replaced_when_the_same_export_wrote_it(small: Store, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    small.export(Format.JSONL, out, frequencies=str(tmp_path / "counts.csv"))
    small.export(Format.JSONL, out, frequencies=str(tmp_path / "counts.csv"), prepend=("new",))
    assert '"caption": "new' in out.read_text(encoding="utf-8")
    with pytest.raises(SettingsError, match=r"a\.jsonl is an export of other images \(all images\)\. --overwrite"):
        small.export(Format.JSONL, out, under="s3://b/x y/")
    small.export(Format.JSONL, out, under="s3://b/x y/", **OVER)
    with pytest.raises(SettingsError, match=r"is an export of other images \(under s3://b/x y/\)"):
        small.export(Format.JSONL, out)


@pytest.mark.parametrize("format_", [Format.JSONL, Format.PARQUET, Format.PARQUET_WIDE, Format.IMAGEFOLDER])
def test_a_file_of_somebody_else_is_replaced_when_told(small: Store, tmp_path: Path, format_: Format) -> None:
    """The same for a file that an export wrote and that was changed since."""
    out = tmp_path / ("metadata.jsonl" if format_ is Format.IMAGEFOLDER else "file")
    out.write_text("mine")
    for _ in range(2):
        with pytest.raises(SettingsError, match="exists, and its digest is not in the record of an export"):
            small.export(format_, out)
        small.export(format_, out, **OVER)
        small.export(format_, out)
        out.write_text("mine")


def test_a_table_of_frequencies_replaces_no_file_of_somebody_else(small: Store, tmp_path: Path) -> None:
    (tmp_path / "counts.csv").write_text("mine")
    for format_, out in ((Format.TXT, "txt"), (Format.CSV, "a.csv"), (Format.IMAGEFOLDER, "set"), (Format.CSV, None)):
        with pytest.raises(SettingsError, match=r"counts\.csv exists, and its digest is not in"):
            small.export(format_, out and tmp_path / out, frequencies=str(tmp_path / "counts.csv"))
    assert files_of(tmp_path)["counts.csv"] == b"mine"


def test_two_files_of_an_export_are_two_files(small: Store, tmp_path: Path) -> None:
    """In other folders they may have the same name."""
    table, counts = tmp_path / "a" / "x.csv", tmp_path / "b" / "x.csv"
    with pytest.raises(SettingsError, match=r"x\.csv is the name of two outputs"):
        small.export(Format.CSV, table, frequencies=f"{tmp_path}/a/./x.csv")
    for _ in range(2):
        small.export(Format.CSV, table, frequencies=str(counts))
    assert table.read_text(encoding="utf-8").startswith("uri,")
    assert counts.read_text(encoding="utf-8").startswith("tag,")


def test_a_record_replaces_nothing_but_a_record(
    small: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tagonce-export.json", "a.csv.export.json"):
        (tmp_path / name).write_text('{"mine": 1}')
    small.export(Format.TXT, tmp_path, **OVER)
    small.export(Format.CSV, tmp_path / "a.csv", **OVER)
    assert (
        capsys.readouterr().err.count("is not the record of an export, and was not changed. The record of this export")
        == 2
    )
    assert (tmp_path / "tagonce-export.json").read_text() == '{"mine": 1}'


def test_an_object_of_other_origin_is_replaced_only_with_overwrite(small: Store, bucket: str) -> None:
    out = f"s3://{bucket}/a.jsonl"
    client = s3_client()
    client.put_object(Bucket=bucket, Key="a.jsonl", Body=b"mine")
    with pytest.raises(SettingsError, match="digest is not in the record of an export"):
        small.export(Format.JSONL, out)
    small.export(Format.JSONL, out, **OVER)
    small.export(Format.JSONL, out)
    with pytest.raises(SettingsError, match="other images"):
        small.export(Format.JSONL, out, under="s3://b/x y/")
    client.put_object(Bucket=bucket, Key="a.jsonl", Body=b"mine")
    with pytest.raises(SettingsError, match="digest is not in the record of an export"):
        small.export(Format.JSONL, out)
    client.close()


def test_a_folder_or_a_pipe_is_never_overwritten(small: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in (".", "pipe"):
        with pytest.raises(SettingsError, match="exists and is not a file"):
            small.export(Format.CSV, tmp_path / name, **OVER)


# ── encodings ──


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("trigger, é\r\n".encode("utf-16"), "trigger, é, a, ü\r\n".encode("utf-16")),
        (codecs.BOM_UTF16_BE + "é".encode("utf-16-be"), codecs.BOM_UTF16_BE + "é, a, ü".encode("utf-16-be")),
        ("é\n".encode("utf-32"), "é, a, ü\n".encode("utf-32")),
        (codecs.BOM_UTF8 + b"x", codecs.BOM_UTF8 + "x, a, ü".encode()),
        (codecs.BOM_UTF8 + b"a, \xc3\xbc", None),
        ("é\r\nsecond\r\n".encode(), "é, a, ü\r\nsecond\r\n".encode()),
        ("caf\xe9 \x92n\x92\r\n".encode("latin-1"), None),
        ("x".encode("utf-16-le"), "x, a, ü".encode("utf-16-le")),
        (b"x\x01", None),
        (codecs.BOM_UTF16_LE + b"x", None),
        (b"", "a, ü\n".encode()),
        (PNG, None),
    ],
)
def test_tags_are_added_in_the_encoding_of_the_file_or_not_at_all(
    small: Store, pictures: Callable[..., list[Path]], before: bytes, after: bytes | None
) -> None:
    (image,) = pictures("a.jpg")
    file = image.with_suffix(".txt")
    file.write_bytes(before)
    small.export(Format.TXT, None, prepend=("a", "ü"), **under(image.parent), **MERGE)
    assert file.read_bytes() == (before if after is None else after)


def test_ascii_goes_into_every_encoding_that_has_it(small: Store, pictures: Callable[..., list[Path]]) -> None:
    (image,) = pictures("a.jpg")
    image.with_suffix(".txt").write_bytes(b"caf\xe9 \x92n\x92\r\n")
    small.export(Format.TXT, None, prepend=("a",), **under(image.parent), **MERGE)
    assert image.with_suffix(".txt").read_bytes() == b"caf\xe9 \x92n\x92, a\r\n"


def test_what_is_taken_for_text() -> None:
    assert understood(b"a\tb\x0c\x1b$B\r\n") is not None
    assert understood(b"RIFF\x10\x20\x01") is None


# ── before it is done ──


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(small: Store, tmp_path: Path) -> None:
    small.export(Format.TXT, tmp_path)
    (tmp_path / "x y" / "00000.txt").write_text("mine")
    (tmp_path / "日本" / "00001.txt").unlink()
    before = files_of(tmp_path)
    said = small.export(Format.TXT, tmp_path, dry=True, **OVER)
    assert said == (
        f"Nothing was written to {tmp_path}. It would be: 1 new ({tmp_path}/日本/00001.txt); 1 replaced "
        f'({tmp_path}/x y/00000.txt); 2 were up to date ({tmp_path}/a,"b"/00002.txt).'
    )
    said = small.export(Format.TXT, tmp_path, dry=True)
    assert f"1 new ({tmp_path}/日本/00001.txt); 3 exist and were not changed" in said
    assert "3 added to" in small.export(Format.TXT, tmp_path, dry=True, prepend=("x",), **MERGE)
    for format_, out in ((Format.CSV, "a.csv"), (Format.PARQUET, "a.parquet"), (Format.IMAGEFOLDER, "set")):
        said = small.export(format_, tmp_path / out, dry=True, frequencies=str(tmp_path / "counts.csv"))
        assert said.startswith("Nothing was written. It would be: 4 images ")
    assert files_of(tmp_path) == before
    small.export(Format.CSV, tmp_path / "a.csv")
    assert small.export(Format.CSV, tmp_path / "a.csv", dry=True).endswith("a.csv, replacing what is there.")


def test_a_dry_run_into_s3(small: Store, bucket: str, listed: Callable[[], dict[str, str]]) -> None:
    place = f"s3://{bucket}/out/"
    small.export(Format.TXT, place)
    client = s3_client()
    client.put_object(Bucket=bucket, Key="out/x y/00000.txt", Body=b"mine")
    client.delete_object(Bucket=bucket, Key="out/日本/00001.txt")
    client.close()
    before = listed()
    assert small.export(Format.TXT, place, dry=True, **OVER) == (
        f"Nothing was written to {place}. It would be: 1 new (out/日本/00001.txt); 1 replaced (out/x y/00000.txt); "
        '2 were up to date (out/a,"b"/00002.txt).'
    )
    assert listed() == before
    small.export(Format.TXT, place, **OVER)
    assert {key for key, etag in listed().items() if etag != before.get(key)} == {
        "out/x y/00000.txt",
        "out/日本/00001.txt",
        "out/tagonce-export.json",
    }


@pytest.fixture
def listed(bucket: str) -> Iterator[Callable[[], dict[str, str]]]:
    client = s3_client()
    yield lambda: {one["Key"]: one["ETag"] for one in client.list_objects_v2(Bucket=bucket).get("Contents", [])}
    client.close()


# ── imagefolder ──


def add_objects(store: Store, *uris: str) -> None:
    """Add objects, registered and tagged, as `add_local` does."""
    add_local(store, [f"/{number}" for number in range(len(uris))])
    with store.database.write() as connection:
        for number, uri in enumerate(uris):
            connection.execute(update(images).where(images.c.uri == file_uri(f"/{number}")).values(uri=uri))


def names_in(file: Path) -> list[str]:
    return [json.loads(line)["file_name"] for line in file.read_text(encoding="utf-8").splitlines()]


def test_each_folder_that_is_a_split_has_metadata_of_its_own(small: Store, tmp_path: Path) -> None:
    names = ["train/a.png", "train/x/b.png", "my test-2/c.png", "x/dev/d.png", "training day/e.png", "trainer/f.png"]
    add_objects(small, *(f"s3://s/{name}" for name in names), "s3://s/../train/evil.png", "s3://s//train/e.png")
    out = tmp_path / "deep" / "out"
    said = small.export(Format.IMAGEFOLDER, out, under="s3://s/", root="s3://s/")
    found = {str(path.relative_to(tmp_path)): names_in(path) for path in tmp_path.rglob("metadata.jsonl")}
    assert found == {
        "deep/out/metadata.jsonl": ["trainer/f.png", "s3://s/../train/evil.png", "s3://s//train/e.png"],
        "deep/out/train/metadata.jsonl": ["a.png", "x/b.png"],
        "deep/out/my test-2/metadata.jsonl": ["c.png"],
        "deep/out/x/dev/metadata.jsonl": ["d.png"],
        "deep/out/training day/metadata.jsonl": ["e.png"],
    }
    assert f"The images are not in {out}/: copy everything below s3://s/ there" in said
    assert "3 images are outside the folders that `datasets` reads as splits (my test-2/, train/, " in said
    said = small.export(Format.IMAGEFOLDER, out, under="s3://s/", root="s3://s/")
    assert f"No image in {out}/, {out}/my test-2/, " in said


def test_pictures_that_are_called_like_a_split(small: Store, tmp_path: Path) -> None:
    add_objects(small, "s3://s/train.png", "s3://s/b.png")
    here = {"under": "s3://s/", "root": "s3://s/"}
    said = small.export(Format.IMAGEFOLDER, tmp_path / "a", **here)
    assert "reads train.png as a split and ignores the other images and the captions" in said
    assert 'split: train\n    path: "**"' in (tmp_path / "a" / "README.md").read_text()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "README.md").write_text("mine")
    assert "README.md exists and was not changed" in small.export(Format.IMAGEFOLDER, tmp_path / "b", **here)
    assert (tmp_path / "b" / "README.md").read_text() == "mine"


# ── files ──


def test_the_umask_is_not_touched_and_a_file_keeps_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All threads share the umask: setting it for a moment would make files of other threads writable for all users."""
    (tmp_path / "mine").write_text("x")
    (tmp_path / "mine").chmod(0o640)
    monkeypatch.delattr(os, "umask")
    for name in ("mine", "new"):
        with whole_file(tmp_path / name) as file:
            file.write("y")
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o640
