"""Folders, single files and manifests of local files."""

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from db.errors import SettingsError, SourceError
from db.ledger.images import Reference
from db.names.uris import file_path, file_uri
from producer.sources import NameFilter, folder, references
from producer.sources.extensions import is_image

WEIRD_NAMES = [
    b"plain.jpg", b"two words.JPG", b'quo"te\'s.png', b"new\nline.webp", b"100%#?&.gif", b"no-utf8-\xff\xfe.jpeg",
    "日本語 🐈.png".encode(), b" leading space.png", b"carriage\rreturn.png", b"two.dots..tiff", b"file:.png",
]  # fmt: skip


def image(path: Path, content: bytes = b"x") -> Path:
    """Write a file with its folders. Sources read names and metadata of files, not their content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def reference(path: Path) -> Reference:
    facts = path.stat()
    return Reference(file_uri(str(path)), f"{facts.st_size}-{facts.st_mtime_ns}", facts.st_size)


def missing(path: Path) -> Reference:
    return Reference(file_uri(str(path)), "", None)


def found(source: Path | str, **options: Any) -> list[Reference]:
    """All references of a source."""
    return list(references(str(source), **options))


# ── names ──


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_any_name_survives_its_uri(name: bytes) -> None:
    """A path of arbitrary bytes survives conversion to a URI, which is ASCII, and back."""
    path = "/" + os.fsdecode(name)
    assert file_path(file_uri(path)) == path
    assert file_uri(path).isascii()


@pytest.mark.parametrize(
    ("name", "taken"),
    [("a.jpg", True), ("A.JPEG", True), ("a.b.Png", True), ("a.txt", False), ("jpg", False), ("x.jpg/a", False)],
)
def test_images_are_known_by_extension(name: str, taken: bool) -> None:
    assert is_image(name) is taken


# ── folders and files ──


def test_a_tree_of_3000_files_is_found_once_each(tmp_path: Path) -> None:
    """Each of 3,000 images in nested folders is yielded once, with size and mtime, and nothing else."""
    expected = set()
    for number in range(3000):
        folder = tmp_path / f"{number % 10}" / f"{number % 7}" / f"{number % 3}"
        path = image(folder / f"{number}.jpg", b"x" * (number % 5))
        expected.add(reference(path))
        if number % 10 == 0:
            image(folder / f"{number}.txt")
    got = found(tmp_path)
    assert len(got) == 3000
    assert set(got) == expected


def test_weird_names_are_found_and_can_be_opened(tmp_path: Path) -> None:
    """Names with newlines, quotes, emoji or bytes that are not UTF-8 lead back to their file."""
    paths = {image(tmp_path / os.fsdecode(name), name) for name in WEIRD_NAMES}
    got = found(tmp_path)
    assert set(got) == {reference(path) for path in paths}
    for each in got:
        assert Path(file_path(each.uri)).read_bytes() == os.fsencode(Path(file_path(each.uri)).name)


SYSTEM = [
    ".hidden.jpg", "._apple.jpg", ".cache/thumb.jpg", ".Trash-1000/files/a.jpg", "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
    "#recycle/a.jpg", "$RECYCLE.BIN/S-1/a.jpg", "$Recycle.Bin/b.jpg", ".thumbnails/a.png", "x/__MACOSX/._a.jpg",
]  # fmt: skip


def test_hidden_and_system_names_are_left_out_and_counted(tmp_path: Path) -> None:
    """Names with a leading dot, thumbnails and trash of NAS boxes, Windows and macOS. Only images are counted."""
    for name in SYSTEM:
        image(tmp_path / name)
    image(tmp_path / ".git" / "config")
    kept = {reference(image(tmp_path / name)) for name in ("shown.jpg", "eaDir/a.jpg", "a.b/b.jpg")}
    names = NameFilter()
    assert set(found(tmp_path, names=names)) == kept
    assert list(names.sentences()) == [
        f"{len(SYSTEM)} files in hidden or system folders left out; --no-default-excludes takes them"
    ]
    everything = NameFilter(default_excludes=False)
    assert len(found(tmp_path, names=everything)) == len(kept) + len(SYSTEM)
    assert everything.hidden == 0
    assert found(tmp_path / ".hidden.jpg") == [reference(tmp_path / ".hidden.jpg")], "named by hand"
    assert len(found(tmp_path / "@eaDir")) == 1, "what is above the source says nothing"


def test_counting_what_is_left_out_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot may be a copy of everything, so counting stops at a limit."""
    monkeypatch.setattr(folder, "COUNTED", 5)
    for number in range(9):
        image(tmp_path / ".snapshot" / f"{number}.jpg")
    image(tmp_path / "a.jpg")
    names = NameFilter()
    assert len(found(tmp_path, names=names)) == 1
    assert next(names.sentences()).startswith("more than 5 files in hidden")


def test_names_that_are_no_images_are_counted_or_taken(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg_large", "c", "d.txt", "sub/e.txt"):
        image(tmp_path / name)
    names = NameFilter()
    assert len(found(tmp_path, names=names)) == 1
    assert names.passed_over == 4
    (sentence,) = names.sentences()
    assert sentence.startswith("4 names passed over (no image extension: .txt, ")
    assert "none at all" in sentence
    assert "--all-names" in sentence
    assert len(found(tmp_path, names=NameFilter(all_names=True))) == 5


@pytest.mark.parametrize(
    ("pattern", "left_out"),
    [
        ("*.png", {"a.png", "x/a.png"}),
        ("x/", {"x/a.jpg", "x/a.png", "y/x/a.jpg"}),
        ("/x", {"x/a.jpg", "x/a.png"}),
        ("x/*.jpg", {"x/a.jpg"}),
        ("**/x/a.jpg", {"x/a.jpg", "y/x/a.jpg"}),
        ("#odd", {"#odd/a.jpg"}),
        ("nothing", set()),
    ],
)
def test_patterns_are_those_of_a_gitignore(pattern: str, left_out: set[str], tmp_path: Path) -> None:
    """On disk, in a list, and, by the same rules, in S3."""
    every = {"a.jpg", "a.png", "x/a.jpg", "x/a.png", "y/x/a.jpg", "#odd/a.jpg"}
    for name in every:
        image(tmp_path / name)
    names = NameFilter([pattern])
    expected = {reference(tmp_path / name) for name in every - left_out}
    assert set(found(tmp_path, names=names)) == expected
    assert names.excluded == len(left_out)
    listed = tmp_path / "list.jsonl"
    listed.write_text("".join(f"{json.dumps(name)}\n" for name in sorted(every)))
    names = NameFilter([pattern])
    assert set(found(listed, names=names)) == expected
    assert names.excluded == len(left_out)


def test_an_empty_pattern_is_refused() -> None:
    with pytest.raises(SettingsError, match="--exclude is empty"):
        NameFilter(["*.png", " "])


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("photos.zip", "Unpack it"),
        ("00000.TAR", "Unpack it"),
        ("list.csv.gz", "Unpack it"),
        ("list.json", r"list of images as \.txt, \.csv"),
        ("notes.html", r"list of images as \.txt, \.csv"),
        ("film.mp4", "frames"),
        ("paper.pdf", "Give an image"),
    ],
)
def test_a_file_that_is_neither_image_nor_list_is_refused_at_the_call(name: str, advice: str, tmp_path: Path) -> None:
    """In S3 no request is made for it."""
    path = image(tmp_path / name)
    for source in (str(path), f"file://{path}", f"s3://nobody/{name}"):
        with pytest.raises(SourceError, match=rf"neither an image nor a list.*{advice}.*--all-names"):
            references(source)
    assert found(path, names=NameFilter(all_names=True)) == [reference(path)]


def test_links_are_followed_under_their_own_name(tmp_path: Path) -> None:
    """A linked file or folder is taken, and its URI has the name of the link."""
    outside = image(tmp_path / "outside" / "a.jpg")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.jpg").symlink_to(outside)
    (root / "folder").symlink_to(outside.parent)
    assert set(references(str(root))) == {reference(root / "link.jpg"), reference(root / "folder" / "a.jpg")}


def test_the_root_may_be_a_link_and_keeps_its_name(tmp_path: Path) -> None:
    image(tmp_path / "real" / "a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert found(str(tmp_path / "link")) == [reference(tmp_path / "link" / "a.jpg")]


def test_link_loops_end_and_real_paths_win(tmp_path: Path) -> None:
    """Each real folder is visited once, under its real path, for any number of links to it."""
    image(tmp_path / "z" / "deep" / "a.jpg")
    (tmp_path / "a-link-that-sorts-first").symlink_to(tmp_path / "z" / "deep")
    (tmp_path / "z" / "up").symlink_to(tmp_path)
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    assert found(tmp_path) == [reference(tmp_path / "z" / "deep" / "a.jpg")]


def test_broken_links_and_pipes_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A broken link is logged; a pipe called .jpg would block its reader and is not an image."""
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.jpg")
    kept = image(tmp_path / "kept.jpg")
    assert found(tmp_path) == [reference(kept)]
    assert "broken.jpg" in caplog.text


def test_a_folder_that_cannot_be_read_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the tree is listed. Longer than a path may be is unreadable even for root."""
    kept = image(tmp_path / "kept.jpg")
    monkeypatch.chdir(tmp_path)
    for _ in range(20):
        Path("d" * 250).mkdir()
        os.chdir("d" * 250)
    Path("lost.jpg").touch()
    with caplog.at_level(logging.WARNING):
        assert found(tmp_path) == [reference(kept)]
    assert "cannot read the folder" in caplog.text
    assert "d" * 250 in caplog.text


def test_a_root_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Here because it was deleted between the call and the iteration."""
    folder = tmp_path / "gone"
    folder.mkdir()
    images = references(str(folder))
    folder.rmdir()
    with pytest.raises(SourceError, match=r"cannot read the folder '.*gone': No such file"):
        next(images)


def test_a_folder_without_images_says_what_it_saw(tmp_path: Path) -> None:
    image(tmp_path / "a.docx")
    image(tmp_path / "sub" / "b")
    with pytest.raises(SourceError, match=r"no image files in '.*' \(2 other files seen; .* jpg "):
        found(tmp_path)


def test_a_single_file_needs_no_extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image(tmp_path / "picture.dat")
    monkeypatch.chdir(tmp_path)
    assert found("picture.dat") == found(path) == [reference(path)]
    assert found(f"file://{path}") == [reference(path)]


def test_the_uri_is_absolute_and_normal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same file has one URI, whether it is reached by `.`, `..` or an absolute path."""
    path = image(tmp_path / "a" / "b.jpg")
    monkeypatch.chdir(path.parent)
    for source in (".", "../a", "./b.jpg", str(tmp_path / "a" / ".." / "a")):
        assert found(source) == [reference(path)]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("nowhere", "there is no file or folder '.*/nowhere'"),
        ("nowhere.csv", "there is no file or folder"),
        ("https://example.com/a.jpg", "https:// is not supported; supported are s3://bucket/key, file:///path"),
        ("file://host/a.jpg", "names another machine"),
        ("s3://", "is not a valid bucket name"),
        ("s3://no spaces/a", "is not a valid bucket name"),
        ("s3://bucket/\udcff", "is not valid UTF-8, and keys in S3 must be"),
        ("", "empty"),
        ("x" * 300, "cannot read '.*': File name too long"),
        ("/dev/null", "neither a file nor a folder"),
    ],
)
def test_a_wrong_source_is_refused_at_the_call(
    source: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call itself raises, before any iteration."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=sentence):
        references(source)


# ── manifests ──


def write_manifest(path: Path, texts: list[str]) -> Path:
    """Write the same references in the format of the extension."""
    match path.suffix:
        case ".txt" | ".list":
            path.write_text("\n".join(texts) + "\n")
        case ".csv" | ".tsv":
            tab = "\t" if path.suffix == ".tsv" else ","
            path.write_text(f"label{tab}path\n" + "".join(f"cat{tab}{text}\n" for text in texts))
        case ".jsonl" | ".ndjson":
            path.write_text("".join(json.dumps({"label": "cat", "path": text}) + "\n" for text in texts))
        case ".parquet":
            table = pa.table({"image": [b"bytes"] * len(texts), "path": pa.array(texts, pa.string())})
            parquet.write_table(table, path)
    return path


FORMATS = ["m.txt", "m.list", "m.csv", "m.tsv", "m.jsonl", "m.ndjson", "m.parquet"]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the manifest, absolute, by URI, through `..`, missing, a folder, twice: in this order."""
    monkeypatch.chdir("/")
    a, b = image(tmp_path / "lists" / "a b.jpg"), image(tmp_path / "b")
    texts = ["a b.jpg", str(b), file_uri(str(a)), "../b", "gone.jpg", "..", f"file://localhost{b}", "a b.jpg"]
    manifest = write_manifest(tmp_path / "lists" / name, texts)
    assert found(manifest) == [
        reference(a), reference(b), reference(a), reference(b),
        missing(tmp_path / "lists" / "gone.jpg"), missing(tmp_path), reference(b), reference(a),
    ]  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_manifest_is_an_error(name: str, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / name, []) if name == "m.parquet" else image(tmp_path / name, b"")
    with pytest.raises(SourceError, match=rf"no references in '.*{name}'"):
        found(manifest)


@pytest.mark.parametrize("name", FORMATS)
def test_what_cannot_be_a_reference_is_named_with_its_row(name: str, tmp_path: Path) -> None:
    """A web address stops the run; the message has file, row and the supported schemes."""
    row = 3 if name.endswith("sv") else 2
    manifest = write_manifest(tmp_path / name, ["a.jpg", "http://example.com/b.jpg"])
    with pytest.raises(SourceError, match=rf"{name}:{row}: .*http:// is not supported; supported are s3://"):
        found(manifest)


@pytest.mark.parametrize("text", ["a\0b.jpg", "s3://bucket/a\0b.jpg", "file:///a%00b.jpg"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_nul_byte_is_refused_with_its_row(name: str, text: str, tmp_path: Path) -> None:
    """PostgreSQL's text cannot hold one, and neither can a file name."""
    manifest = write_manifest(tmp_path / name, [text])
    with pytest.raises(SourceError, match=rf"{name}:[12]: .*NUL byte"):
        found(manifest)


def test_base_moves_where_relative_references_start(tmp_path: Path) -> None:
    path = image(tmp_path / "images" / "a.jpg")
    manifest = write_manifest(tmp_path / "m.txt", ["a.jpg"])
    assert found(manifest, base=tmp_path / "images") == [reference(path)]


def test_comments_blank_lines_bom_and_crlf_in_text(tmp_path: Path) -> None:
    """A name that begins with # is written ./#x; spaces belong to the name."""
    for name in ("#x.jpg", " y.jpg ", "z.jpg"):
        image(tmp_path / name)
    manifest = image(tmp_path / "m.txt", b"\xef\xbb\xbfz.jpg\r\n# a comment\r\n\r\n  \n./#x.jpg\n y.jpg ")
    assert found(manifest) == [reference(tmp_path / n) for n in ("z.jpg", "#x.jpg", " y.jpg ")]


def test_names_that_are_no_utf8_survive_a_text_manifest(tmp_path: Path) -> None:
    path = image(tmp_path / os.fsdecode(b"\xff\r\xfe.jpg"))
    manifest = image(tmp_path / "m.txt", os.fsencode(path) + b"\n")
    assert found(manifest) == [reference(path)]


def test_standard_input_is_a_text_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the current folder or to base, and bytes that are no UTF-8 survive."""
    path = image(tmp_path / os.fsdecode(b"\xff.jpg"))
    lines = path.name.encode(errors="surrogateescape") + b"\n"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines), "utf-8"))
    assert found("-") == [reference(path)]
    monkeypatch.chdir("/")
    assert found("-", base=tmp_path, stdin=io.StringIO(path.name)) == [reference(path)]
    with pytest.raises(SourceError, match=r"standard input:1: .*ftp:// is not supported"):
        found("-", stdin=io.StringIO("ftp://x\n"))
    with pytest.raises(SourceError, match="no references in 'standard input'"):
        found("-", stdin=io.StringIO("# nothing\n"))


def test_standard_input_may_be_separated_by_nul_or_be_utf16(tmp_path: Path) -> None:
    """`find -print0 | tagonce tag -0 -`, with names that do not fit in a line; and a pipe of PowerShell."""
    paths = [image(tmp_path / name) for name in ("two\nlines.jpg", "#x.jpg", os.fsdecode(b"\xff.jpg"))]
    data = b"".join(os.fsencode(path.name) + b"\0" for path in paths)
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(data)), "utf-8")  # type: ignore[type-var]
    assert found("-", base=tmp_path, stdin=stdin, null=True) == [reference(path) for path in paths]
    listed = image(tmp_path / "names", data)
    table = image(tmp_path / "names.csv", b"path\n#x.jpg\n")
    assert found(listed, null=True) == [reference(path) for path in paths]
    assert found(table, null=True) == [reference(paths[1])]
    plain = image(tmp_path / "é.jpg")
    for codec in ("utf-16", "utf-16-le", "utf-8-sig"):
        stdin = io.TextIOWrapper(io.BytesIO("é.jpg\r\n".encode(codec)), "utf-8")
        assert found("-", base=tmp_path, stdin=stdin) == [reference(plain)]
    with pytest.raises(SourceError, match="standard input is not UTF-16-LE text"):
        found("-", base=tmp_path, stdin=io.TextIOWrapper(io.BytesIO(b"\xff\xfea"), "utf-8"))
    with pytest.raises(SourceError, match="no references in 'standard input'"):
        found("-", stdin=io.TextIOWrapper(io.BytesIO(b"\0"), "utf-8"), null=True)


def test_columns_are_found_by_name_or_chosen(tmp_path: Path) -> None:
    """A known name in any case, by preference; a given one exactly."""
    manifest = image(tmp_path / "m.csv", b'\xef\xbb\xbfkey,Path,"odd, name"\nk,p,"o\nx"\n\n')
    assert found(manifest) == [missing(tmp_path / "p")]
    assert found(manifest, column="key") == [missing(tmp_path / "k")]
    assert found(manifest, column="odd, name") == [missing(tmp_path / "o\nx")]
    with pytest.raises(SourceError, match=r"m\.csv has no text column 'path'; its text columns are: key, Path, odd"):
        found(manifest, column="path")


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.parquet"])
def test_no_known_column_is_an_error_that_lists_what_there_is(name: str, tmp_path: Path) -> None:
    manifest = tmp_path / name
    if name == "m.parquet":
        parquet.write_table(pa.table({"label": ["cat"], "image": [b"x"]}), manifest)
    else:
        manifest.write_text("label\ncat\n" if name == "m.csv" else '{"label": "cat"}\n')
    with pytest.raises(SourceError, match=r"no text column with a known name .* its text columns are: label\. Choose"):
        found(manifest)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("m.csv", "path,label\na.jpg,cat\n,dog\n", r"m\.csv:3: .*empty"),
        ("m.csv", "label,path\ncat,a.jpg\ndog\n", r"m\.csv:3: this row has no column 'path'"),
        ("m.csv", 'path\na.jpg\n"b.jpg\nc.jpg\n', r"m\.csv, line 3: a quoted field begins here and never ends"),
        ("m.jsonl", '"a.jpg"\n{"path": \n', r"m\.jsonl:2: this line is not JSON"),
        ("m.jsonl", '"a.jpg"\n[1]\n', r"m\.jsonl:2: this line is neither a string nor an object"),
        ("m.jsonl", '{"path": null}\n', r"m\.jsonl:1: this line is neither a string nor an object"),
        ("m.jsonl", '"\\ud83d.jpg"\n', r"m\.jsonl:1: .*is not a possible file name"),
        ("m.jsonl", '"s3://bucket"\n', r"m\.jsonl:1: .*names a bucket without an object"),
        ("m.parquet", "no parquet at all", r"m\.parquet' cannot be read as parquet"),
    ],
)
def test_a_malformed_row_is_named(name: str, content: str, sentence: str, tmp_path: Path) -> None:
    manifest = image(tmp_path / name, content.encode())
    with pytest.raises(SourceError, match=sentence):
        found(manifest)


def test_jsonl_takes_plain_strings_and_blank_lines(tmp_path: Path) -> None:
    manifest = image(tmp_path / "m.jsonl", b'"a.jpg"\n\n{"file_name": "b.jpg"}\n')
    assert found(manifest) == [missing(tmp_path / "a.jpg"), missing(tmp_path / "b.jpg")]


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_manifest(tmp_path / "m.parquet", ["a.jpg"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SettingsError, match=r"pip install 'tagonce\[parquet\]'"):
        found(manifest)


def test_dictionary_encoded_parquet_and_null_rows(tmp_path: Path) -> None:
    """Dictionary columns are text too; a null is a row without a reference, and an error with its number."""
    column = pa.array(["a.jpg", None]).dictionary_encode()
    parquet.write_table(pa.table({"path": column}), tmp_path / "m.parquet")
    got = references(str(tmp_path / "m.parquet"))
    assert next(got) == missing(tmp_path / "a.jpg")
    with pytest.raises(SourceError, match=r"m\.parquet:2: .*empty"):
        next(got)


def test_a_long_name_or_a_file_as_folder_is_only_missing(tmp_path: Path) -> None:
    """A file that the file system refuses becomes a failure; it does not end the run."""
    image(tmp_path / "file")
    manifest = write_manifest(tmp_path / "m.txt", ["x" * 5000, "file/below.jpg"])
    assert [each.version for each in references(str(manifest))] == ["", ""]


def test_local_sources_leave_boto3_alone(tmp_path: Path) -> None:
    """Importing it takes a quarter of a second, which a folder does not need."""
    image(tmp_path / "a.jpg")
    code = (
        "import sys; from producer.sources import references; list(references(sys.argv[1])); "
        "sys.exit('boto3' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
