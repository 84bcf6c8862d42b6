"""True tags as people keep them: what each format says, how tags are spelt, and what a reference may mean."""

import gzip
import json
from pathlib import Path

import pytest

from db.errors import SourceError
from db.ledger.models import Tag
from db.names.match_images import SHA256, Way, by_md5, by_path, by_sha256
from db.names.match_tags import TagIndex
from db.truth.truth_files import read_entries, split_caption

MD5, OTHER_MD5, HASH = "0123456789abcdef" * 2, "f" * 32, "AB" * 32


def said(source: Path) -> list[tuple[str, list[str] | None]]:
    """(reference as written, tags) of everything."""
    return [(entry.reference.text, entry.tags) for entry in read_entries(source)]


# ── tags ──

NAMES = ["long_hair", "saber_(fate)", ":d", ":D", "re:zero", "zero", "wolf", "", "o_o", "twice", "twice"]


@pytest.fixture(scope="module")
def index() -> TagIndex:
    return TagIndex([Tag(name, "Pokemon" if name == "wolf" else None) for name in NAMES])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("long_hair", ["long_hair"]),
        ("Long Hair", ["long_hair"]),
        ("  long   hair ", ["long_hair"]),
        (r"saber \(fate\)", ["saber_(fate)"]),
        (r"Saber_\(Fate\)", ["saber_(fate)"]),
        ("character:saber (fate)", ["saber_(fate)"]),
        ("Species: wolf", ["wolf"]),
        ("pokemon:wolf", ["wolf"]),
        (":d", [":d"]),
        (":D", [":D"]),
        ("re:zero", ["re:zero"]),
        ("o o", ["o_o"]),
    ],
)
def test_a_tag_is_found_however_it_is_written(index: TagIndex, text: str, names: list[str]) -> None:
    for _ in range(2):
        assert [NAMES[tag_id] for tag_id in index.find(text)] == names


@pytest.mark.parametrize("text", ["", "short_hair", "title:wolf", "no:zero", "species:", "hair"])
def test_what_the_model_does_not_have_is_not_found(index: TagIndex, text: str) -> None:
    """A word before a colon that is no namespace belongs to the tag: `no:zero` is not `zero`."""
    assert index.find(text) == ()


def test_a_name_that_the_model_has_twice_means_both(index: TagIndex) -> None:
    assert index.find("twice") == (9, 10)


def test_captions_are_split_at_commas_and_at_lines() -> None:
    assert split_caption("a b,  c_d ,,\n e\r\nf,") == ["a b", "c_d", "e", "f"]
    assert split_caption(" \n") == []


# ── formats ──


def test_a_folder_of_sidecars_names_images_by_their_place_in_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.txt").write_text("\ufeffcat, dog\n", encoding="utf-8")
    (tmp_path / "2.jpg.txt").write_text("cat\nlong hair\n")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "1.jpg").touch()
    assert said(tmp_path) == [
        ("2.jpg", ["cat", "long hair"]),
        ("a/1", ["cat", "dog"]),
        ("bad", None),
        ("empty", []),
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"file_name": "1.jpg", "tags": ["a", "b"]}, ("1.jpg", ["a", "b"])),
        ({"uri": "s3://b/1", "tags": {"a": 0.9, "b": 0}}, ("s3://b/1", ["a", "b"])),
        ({"path": "/x/1.jpg", "tags": {"general": ["a"], "meta": [], "artist": ["b"]}}, ("/x/1.jpg", ["a", "b"])),
        ({"image": "1.jpg", "caption": "a, b c"}, ("1.jpg", ["a", "b c"])),
        ({"image_path": "1.jpg", "text": "a"}, ("1.jpg", ["a"])),
        ({"md5": MD5, "tag_string": "a b_c"}, (MD5, ["a", "b_c"])),
        ({"sha256": HASH, "tags": []}, (HASH, [])),
    ],
)
def test_json_lines(tmp_path: Path, line: dict[str, object], expected: tuple[str, list[str]]) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(json.dumps(line) + "\n\n")
    assert said(file) == [expected]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "t.csv",
            'image,tag\n1.jpg,a\n1.jpg,"b, c"\n2.jpg,a\n3.jpg,\n',
            [("1.jpg", ["a", "b, c"]), ("2.jpg", ["a"]), ("3.jpg", [])],
        ),
        ("t.csv", 'id,file_name,tags\n7,1.jpg,"a, b"\n\n8,2.jpg,\n', [("1.jpg", ["a", "b"]), ("2.jpg", [])]),
        ("t.csv", f"id,MD5,tag_string\r\n7,{MD5},a b\r\n", [(MD5, ["a", "b"])]),
        ("t.csv", f"md5,tag\n{MD5},a\n{MD5},b\n{OTHER_MD5},a\n", [(MD5, ["a", "b"]), (OTHER_MD5, ["a"])]),
        ("t.csv", f"{MD5},a\n{OTHER_MD5},b,0.5\n", [(MD5, ["a"]), (OTHER_MD5, ["b"])]),
        ("t.csv", '1.jpg,"a, b"\n', [("1.jpg", ["a", "b"])]),
        ("t.tsv", "path\ttext\nx/1.jpg\ta,b\n", [("x/1.jpg", ["a", "b"])]),
        ("t.csv", "", []),
    ],
)
def test_tables(tmp_path: Path, name: str, text: str, expected: list[tuple[str, list[str]]]) -> None:
    """With and without a header, a row a tag or a row an image; packed too."""
    (tmp_path / name).write_text(text, newline="")
    assert said(tmp_path / name) == expected
    with gzip.open(tmp_path / f"{name}.gz", "wt", newline="") as file:
        file.write(text)
    assert said(tmp_path / f"{name}.gz") == expected


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.jsonl", b'{"path": "a", "tags": []}\n{', "line 2: not JSON"),
        ("t.jsonl", b"[1]\n", "line 1: not a JSON object"),
        ("t.jsonl", b'{"path": "a"}\n', "tags under one of tags, caption, text, tag_string; it has path"),
        ("t.json", b"[1]", "object 1: not a JSON object"),
        ("t.json", b"7", "neither a list nor an object"),
        ("t.json", b'{"1.jpg": 7}', "'1.jpg': needs tags"),
        ("t.json", b"{", "is not JSON"),
        ("t.json", b"[" * 200_000, "is not JSON"),
        ("t.csv", b'image,tags\n1.jpg,"a, b\n2.jpg,a\n', "line 2: a quoted field begins here and never ends"),
        ("t.csv", b'image,tags\n1.jpg,"a"b\n', "line 2: ',' expected after"),
        ("t.jsonl", b'{"tags": ["a"]}\n', "needs an image under one of uri, url, path"),
        ("t.jsonl", b"\xff\n", "line 1: not JSON"),
        ("t.jsonl", b"\xff\xfe{", "is not UTF-16"),
        ("t.jsonl.gz", b"no gzip", "cannot be read"),
        ("t.csv", b"image,score\n1,2\n", "has the columns image, score. It needs an image in one of"),
        ("t.csv", b"image,tag\n1.jpg,a\n2.jpg\n", "line 3: too few columns"),
        ("t.parquet", b"", "are read from a folder"),
    ],
)
def test_a_file_that_says_nothing_clear_is_refused_in_words(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=words):
        said(tmp_path / name)


@pytest.mark.parametrize(("name", "words"), [("none", "There is no .*none"), ("none.csv", "cannot be read: No such")])
def test_what_is_not_there_is_refused_in_words(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        said(tmp_path / name)


def test_a_folder_without_sidecars_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no .txt files"):
        said(tmp_path)


# ── references ──


def test_a_relative_path_is_tried_from_its_folder_and_then_as_the_end_of_a_uri() -> None:
    reference = by_path("./a/../b/1 x.jpg", Path("/data"))
    assert reference.ways == (
        (Way(0, suffix=True), "file:///data/b/1%20x.jpg"),
        (Way(0, suffix=False), "file:///data/b/1%20x.jpg"),
        (Way(2, suffix=True), "b/1 x.jpg"),
        (Way(2, suffix=False), "b/1 x.jpg"),
    )


def test_uris_and_absolute_paths_mean_no_ends() -> None:
    assert {way.parts for way, _ in by_path("s3://b/1.jpg", Path("/data")).ways} == {0}
    assert {way.parts for way, _ in by_path("/x/1.jpg", Path("/data")).ways} == {0}


def test_hashes_are_content() -> None:
    assert by_md5(MD5.upper()).ways == ((Way(1, suffix=False), MD5),)
    assert [way for way, _ in by_sha256(HASH).ways] == [SHA256, Way(1, suffix=False)]
    assert by_md5(MD5).content
    assert by_sha256(HASH).content
