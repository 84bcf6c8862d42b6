"""Formats: `json`, `csv` and pyarrow read from an export exactly what a plain loop computes."""

import csv
import hashlib
import io
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sqlalchemy import delete, insert, select

from db.database import Database, open_database
from db.errors import SettingsError
from db.export import parquet as export_parquet
from db.export.options import CaptionOptions, Placement, Sort, Underscores
from db.ledger import images, models, results
from db.ledger.models import Model, Tag
from db.ledger.results import Prediction
from db.names.uris import file_uri
from db.policy import profiles
from db.policy.policies import Policy
from db.schema import files
from db.schema import images as image_table
from db.scores import Scores
from producer.storage.s3_client import s3_client
from tagonce.export.choices import Existing, Format
from tagonce.export.formats import FORMATS
from tagonce.export.job import Export
from tagonce.export.run import run
from tagonce.options.policy_options import resolve_policy
from tests.fixtures.command import Outcome, script
from tests.fixtures.straight import straight_caption, straight_items
from tests.unit.test_captions import TAGS

SCORE = 3500
FLOOR = 100
AT_ONCE, IMAGES = 100, 110
"""Images in a batch here, and more than one batch of them."""


@dataclass
class Store:
    """A database with a model and random predictions, and the same predictions in memory."""

    database: Database
    model: Model
    uris: list[str]
    sizes: list[tuple[int | None, int | None]]
    scores: list[dict[int, int]]
    """The scores of each image, by tag id."""

    def export(self, format_: Format, out: str | Path | None, policy: Policy | None = None, **given: Any) -> str:
        """Run an export. Options that are not options of captions are options of `Export`."""
        about = {
            name: given.pop(name)
            for name in ("extension", "existing", "under", "frequencies", "where", "root", "dry")
            if name in given
        }
        profile = given.pop("profile", None)
        with self.database.read() as connection:
            resolved = resolve_policy(connection, self.model, policy or Policy(SCORE), profile)
            to, spec = None if out is None else str(out), FORMATS[format_]
            return run(connection, Export(spec, to, spec.options(given), resolved, **about))

    def straight(self, options: CaptionOptions) -> Iterator[tuple[Any, ...]]:
        """Arguments of the plain loop for each image."""
        for uri, scores in zip(self.uris, self.scores, strict=True):
            yield uri, scores, TAGS, [SCORE] * len(TAGS), options

    def own(self) -> list[dict[str, float]]:
        """The tags that a threshold keeps, under the model's own names. Blank or repeated names have their number."""
        ranked = [sorted(scores.items(), key=lambda pair: (-pair[1], pair[0])) for scores in self.scores]
        return [{NAMES[tag]: score / 10_000 for tag, score in row if score >= SCORE} for row in ranked]


NAMES = [
    tag.name if tag.name.strip() and tag.name not in [other.name for other in TAGS[:number]] else f"{tag.name}#{number}"
    for number, tag in enumerate(TAGS)
]


def one_line(name: str) -> str:
    """A tag as it is written, without line ends."""
    return name.replace("\n", " ")


def fill(database: Database, number: int) -> Store:
    """Add a number of images with random scores, some of them without a tag or without a size."""
    rng = np.random.default_rng(7)
    folders = ("s3://b/x y/", "s3://b/日本/", 's3://b/a,"b"/', "s3://b/%41/")
    uris = [f"{folders[image % 4]}{image:05}.jpg" for image in range(number)]
    with database.write() as connection:
        model = models.register(
            connection,
            name="nasty",
            weights_sha256="ab" * 32,
            spec={},
            tag_list=TAGS,
            floor=FLOOR,
            default_threshold=5000,
        )
        connection.execute(
            insert(image_table), [{"uri": uri, "version": "1", "added_at": datetime.now(UTC)} for uri in uris]
        )
        sizes: list[tuple[int | None, int | None]] = []
        scores: list[dict[int, int]] = []
        predictions = []
        for row in connection.execute(select(image_table.c.id).order_by(image_table.c.id)):
            tags = np.sort(rng.choice(len(TAGS), rng.integers(0, 16), replace=False))
            values = rng.choice([150, 3499, 3500, 3501, 7000, 9123, 10_000], tags.size)
            order = np.lexsort((tags, values))
            packed = Scores(tags[order].astype(np.int16), values[order].astype(np.int16))
            size = (None, None) if len(sizes) % 50 == 3 else (640, 480 + len(sizes) % 7)
            sizes.append(size)
            scores.append(dict(zip(tags.tolist(), values.tolist(), strict=True)))
            predictions.append(Prediction(row.id, "1", 1, size[0] or 0, size[1] or 0, "jpeg", bytes(32), packed))
        results.save(connection, model.id, predictions, [])
        connection.execute(delete(files).where(files.c.width == 0))  # as after the registration of a new version
    return Store(database, model, uris, sizes, scores)


@pytest.fixture
def store(database: Database, monkeypatch: pytest.MonkeyPatch) -> Store:
    for module in ("db.read.tag_batches", "db.export.parquet", "tagonce.export.parquet_writer"):
        monkeypatch.setattr(f"{module}.IMAGES_AT_ONCE", AT_ONCE)
    return fill(database, IMAGES)


@pytest.fixture
def small(database: Database) -> Store:
    return fill(database, 12)


EVERYTHING: dict[str, Any] = {
    "exclude": ("*_text", "fate"),
    "replace": (("a_b", "solo"), ("grey_hair", "gray hair")),
    "expand_characters": True,
    "first": ("solo",),
    "category_order": ("character", "copyright"),
    "max_tags": 6,
    "sort": Sort.SHUFFLE,
    "seed": 3,
}
IN_CAPTIONS: dict[str, Any] = {
    "prepend": ('my "style"',),
    "append": ("end",),
    "escape": True,
    "score_suffix": True,
    "rating": Placement.LAST,
    "quality": Placement.LAST,
}


# ── text ──


@pytest.mark.parametrize("given", [{}, EVERYTHING | IN_CAPTIONS | {"separator": '"\n'}])
def test_json_lines_are_what_json_writes(store: Store, tmp_path: Path, given: dict[str, Any]) -> None:
    """`tags` has all tags of the policy, also those that the caption omits."""
    said = store.export(Format.JSONL, tmp_path / "a.jsonl", **given)
    assert said == f"{IMAGES:,} images written to {tmp_path / 'a.jsonl'}."
    expected = [
        {"uri": uri, "width": width, "height": height, "caption": straight_caption(*straight), "tags": tags}
        for uri, (width, height), straight, tags in zip(
            store.uris,
            store.sizes,
            store.straight(FORMATS[Format.JSONL].options(given)),
            store.own(),
            strict=True,
        )
    ]
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").split("\n")
    assert lines == [*(json.dumps(row, ensure_ascii=False) for row in expected), ""]


def test_imagefolder_metadata_has_the_same_keys_in_every_line(store: Store, tmp_path: Path) -> None:
    """The names are relative to the common prefix of the images, since these are not in the folder."""
    store.export(Format.IMAGEFOLDER, tmp_path / "set")
    expected = [
        {
            "file_name": uri.removeprefix("s3://b/"),
            "text": straight_caption(*straight),
            "tags": list(tags),
            "probabilities": list(tags.values()),
        }
        for uri, straight, tags in zip(store.uris, store.straight(CaptionOptions()), store.own(), strict=True)
    ]
    lines = (tmp_path / "set" / "metadata.jsonl").read_text(encoding="utf-8").split("\n")
    assert lines == [*(json.dumps(row, ensure_ascii=False) for row in expected), ""]


@pytest.mark.parametrize("given", [{}, EVERYTHING | {"rating": Placement.FIRST, "underscores": Underscores.SPACES}])
def test_long_csv_is_what_csv_writes(store: Store, tmp_path: Path, given: dict[str, Any]) -> None:
    store.export(Format.CSV, tmp_path / "a.csv", **given)
    named = [Tag(name, tag.category) for name, tag in zip(NAMES, TAGS, strict=True)]
    expected = io.StringIO()
    writer = csv.writer(expected, lineterminator="\n")
    writer.writerow(["uri", "tag", "category", "probability"])
    for uri, scores, _, thresholds, options in store.straight(FORMATS[Format.CSV].options(given)):
        for item in straight_items(uri, scores, named, thresholds, options):
            writer.writerow([uri, item.text, item.category, item.score / 10_000])
    assert (tmp_path / "a.csv").read_bytes().decode() == expected.getvalue()
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert {row["uri"] for row in csv.DictReader(file)} <= set(store.uris)


def test_kohyas_metadata_is_one_json_object(store: Store, tmp_path: Path) -> None:
    store.export(Format.KOHYA, tmp_path / "meta.json", **IN_CAPTIONS)
    text = (tmp_path / "meta.json").read_text(encoding="utf-8")
    straight = store.straight(CaptionOptions(**IN_CAPTIONS))
    expected = {
        uri: {"tags": straight_caption(*arguments), "image_size": list(size)}
        for uri, size, arguments in zip(store.uris, store.sizes, straight, strict=True)
    }
    assert json.loads(text) == expected
    lines = [
        f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(v, ensure_ascii=False)}" for key, v in expected.items()
    ]
    assert text == "{\n" + ",\n".join(lines) + "\n}\n"


def test_kohyas_keys_are_paths_of_local_images(small: Store, database: Database, tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("é ü.jpg", "b.jpg")]
    add_local(small, paths)
    small.export(Format.KOHYA, tmp_path / "meta.json", under=file_uri(str(tmp_path)))
    assert list(json.loads((tmp_path / "meta.json").read_text(encoding="utf-8"))) == paths


def add_local(store: Store, paths: list[str]) -> None:
    """Add local images without a tag."""
    empty = Scores(np.empty(0, np.int16), np.empty(0, np.int16))
    with store.database.write() as connection:
        rows = [{"uri": file_uri(path), "version": "1", "added_at": datetime.now(UTC)} for path in paths]
        connection.execute(insert(image_table), rows)
        ids = images.pending_after(connection, store.model.id, 0, len(paths))
        results.save(
            connection, store.model.id, [Prediction(one, "1", 1, 4, 3, "jpeg", bytes(32), empty) for one in ids], []
        )


def test_imagefolder_names_are_relative_to_the_folder_that_holds_the_images(small: Store, tmp_path: Path) -> None:
    """`datasets` finds the images under these names in the folder of the metadata, or otherwise in a root."""
    folder = tmp_path / "set"
    add_local(small, [str(folder / "pics" / "a b.jpg"), str(folder / "pics" / "sub" / "ü.png")])
    (folder / "pics" / "sub").mkdir(parents=True)
    here = {"under": file_uri(str(folder))}
    for out, expected in (
        (folder, ["pics/a b.jpg", "pics/sub/ü.png"]),
        (folder / "pics" / "metadata.jsonl", ["a b.jpg", "sub/ü.png"]),
        (folder / "pics" / "sub", ["a b.jpg", "sub/ü.png"]),
        (tmp_path / "elsewhere", ["a b.jpg", "sub/ü.png"]),
    ):
        inside = out in {folder, folder / "pics" / "metadata.jsonl"}
        root = {} if inside else {"root": file_uri(str(folder / "pics")) + "/"}
        said = small.export(Format.IMAGEFOLDER, out, **here, **root)
        assert inside == ("The images are not in" not in said)
        file = out if out.suffix else out / "metadata.jsonl"
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        assert [row["file_name"] for row in rows] == expected
        assert {tuple(row) for row in rows} == {("file_name", "text", "tags", "probabilities")}
        assert (file.parent / "metadata.jsonl.export.json").exists()


def test_text_formats_stream_to_standard_output(
    small: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In that case the record is one line on standard error."""
    for format_ in (Format.JSONL, Format.CSV, Format.KOHYA, Format.IMAGEFOLDER):
        small.export(format_, tmp_path / "file.jsonl")
        assert small.export(format_, None) == "12 images written to standard output."
        captured = capsys.readouterr()
        assert captured.out == (tmp_path / "file.jsonl").read_text(encoding="utf-8")
        assert json.loads(captured.err)["format"] == format_


# ── sidecars ──


def test_txt_and_hydrus_sidecars(small: Store, tmp_path: Path) -> None:
    """One line per caption; for Hydrus one line per tag, with namespaces."""
    small.export(Format.TXT, tmp_path / "txt", **IN_CAPTIONS)
    small.export(Format.HYDRUS, tmp_path / "hydrus")
    small.export(Format.TXT, tmp_path / "other", extension=".caption", **IN_CAPTIONS)
    hydrus = replace(FORMATS[Format.HYDRUS].defaults, separator="\n")
    namespaces = {"artist": "creator", "copyright": "series"}
    for straight in small.straight(CaptionOptions(**IN_CAPTIONS)):
        name = straight[0].removeprefix("s3://b/")
        caption = straight_caption(*straight) + "\n"
        assert (tmp_path / "txt" / name).with_suffix(".txt").read_text(encoding="utf-8") == caption
        assert (tmp_path / "other" / name).with_suffix(".caption").read_text(encoding="utf-8") == caption
        tags = straight_caption(*straight[:4], hydrus, namespaces=namespaces) + "\n"
        assert (tmp_path / "hydrus" / f"{name}.txt").read_text(encoding="utf-8") == tags
    assert record(tmp_path / "txt" / "tagonce-export.json")["counts"]["written"] == 12


def test_sidecars_are_merged_with_the_options_in_force(small: Store, tmp_path: Path) -> None:
    """Tags of a lower threshold are appended to those of a higher one. A second run adds nothing."""
    small.export(Format.TXT, tmp_path, Policy(9000))
    before = {path: path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.txt")}
    small.export(Format.TXT, tmp_path, Policy(3500), existing=Existing.MERGE)
    for straight in small.straight(CaptionOptions()):
        path = (tmp_path / straight[0].removeprefix("s3://b/")).with_suffix(".txt")
        after, whole = path.read_text(encoding="utf-8")[:-1], straight_caption(*straight)
        assert after.startswith(before[path][:-1])
        assert sorted(after.split(", ")) == sorted(whole.split(", "))
    said = small.export(Format.TXT, tmp_path, Policy(3500), existing=Existing.MERGE)
    assert said == f"0 captions written to {tmp_path}; 12 have all these tags."


def test_sidecars_beside_images_leave_their_record_in_the_folder_of_all(small: Store, tmp_path: Path) -> None:
    add_local(small, [str(tmp_path / "a" / "1.jpg"), str(tmp_path / "b" / "2.jpg")])
    here = file_uri(str(tmp_path)) + "/"
    small.export(Format.HYDRUS, None, under=here)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*") if path.suffix != ".db"} >= {
        "a/1.jpg.txt",
        "b/2.jpg.txt",
        "tagonce-export.json",
    }
    assert record(tmp_path / "tagonce-export.json")["under"] == here
    with pytest.raises(SettingsError, match="in S3: name with --out"):
        small.export(Format.TXT, None)


# ── Parquet ──


@pytest.mark.parametrize("given", [{}, EVERYTHING | {"rating": Placement.FIRST, "quality": Placement.FIRST}])
def test_long_parquet_has_a_row_a_tag(store: Store, tmp_path: Path, given: dict[str, Any]) -> None:
    store.export(Format.PARQUET, tmp_path / "long.parquet", **given)
    table = pq.read_table(tmp_path / "long.parquet")
    assert [f"{field.name} {field.type}" for field in table.schema] == [
        "image_id int64",
        "uri string",
        "tag dictionary<values=string, indices=int32, ordered=0>",
        "category dictionary<values=string, indices=int32, ordered=0>",
        "probability float",
    ]
    named = [Tag(name, tag.category) for name, tag in zip(NAMES, TAGS, strict=True)]
    expected = [
        (uri, item.text, item.category, float(np.float32(item.score / 10_000)))
        for uri, scores, _, thresholds, options in store.straight(FORMATS[Format.PARQUET].options(given))
        for item in straight_items(uri, scores, named, thresholds, options)
    ]
    columns = table.to_pydict()
    rows = zip(columns["uri"], columns["tag"], columns["category"], columns["probability"], strict=True)
    assert list(rows) == expected
    ids = dict(zip(store.uris, image_ids(store), strict=True))
    assert columns["image_id"] == [ids[uri] for uri in columns["uri"]]
    made_by = json.loads(table.schema.metadata[b"tagonce"])
    assert (made_by["model"]["name"], made_by["policy"]) == ("nasty", {"threshold": 0.35})
    assert {pq.ParquetFile(tmp_path / "long.parquet").metadata.row_group(0).column(4).compression} == {"ZSTD"}


def image_ids(store: Store) -> list[int]:
    with store.database.read() as connection:
        return list(connection.scalars(select(image_table.c.id).order_by(image_table.c.id)))


@pytest.mark.parametrize("chunks", [export_parquet._WIDE_CHUNKS, 1])
def test_wide_parquet_has_a_column_a_tag(
    store: Store, tmp_path: Path, chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Null if a tag is not kept. The images are split into several files if one would be too large."""
    monkeypatch.setattr(export_parquet, "_WIDE_CHUNKS", chunks)
    said = store.export(Format.PARQUET_WIDE, tmp_path / "wide.parquet")
    files = sorted(tmp_path.glob("*.parquet"))
    names = ["wide.parquet"] if chunks > 1 else ["wide-00000.parquet", "wide-00001.parquet"]
    assert [path.name for path in files] == names
    assert record(tmp_path / "wide.parquet.export.json")["counts"]["files"] == len(names)
    assert (f"2 files, {tmp_path / names[0]} and on" in said) == (chunks == 1)
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    assert list(rows[0]) == ["image_id", "uri", "width", "height", *map(one_line, NAMES)]
    for row, image, uri, size, tags in zip(rows, image_ids(store), store.uris, store.sizes, store.own(), strict=True):
        assert (row.pop("image_id"), row.pop("uri"), (row.pop("width"), row.pop("height"))) == (image, uri, size)
        kept = {name: value for name, value in row.items() if value is not None}
        assert kept == {one_line(name): float(np.float32(value)) for name, value in tags.items()}


def test_wide_parquet_puts_tags_that_are_called_the_same_into_one_column(small: Store, tmp_path: Path) -> None:
    """The most probable tag counts. A tag with the name of another column gets a longer name."""
    small.export(
        Format.PARQUET_WIDE,
        tmp_path / "w.parquet",
        replace=(("grey_hair", "gray_hair"), ("long_hair", "uri"), ("a_b", "")),
        exclude=("explicit*",),
        rating=Placement.NONE,
    )
    columns = pq.read_table(tmp_path / "w.parquet").to_pydict()
    grey, gray = (next(n for n, tag in enumerate(TAGS) if tag.name == name) for name in ("grey_hair", "gray_hair"))
    best = [max(row.get(grey, 0), row.get(gray, 0)) for row in small.scores]
    assert columns["gray_hair"] == [float(np.float32(one / 10_000)) if one >= SCORE else None for one in best]
    assert {"tag:uri", "general#26"} <= set(columns)
    assert not {"grey_hair", "long_hair", "a_b", "explicit", "general", "explicit#35"} & set(columns)


def test_parquet_needs_a_file_and_its_library(small: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="is not text: name a file with --out"):
        small.export(Format.PARQUET, None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SettingsError, match=r"pip install 'tagonce\[parquet\]'"):
        small.export(Format.PARQUET, tmp_path / "a.parquet")
    assert not list(tmp_path.glob("*.parquet"))


# ── what all have in common ──


@pytest.mark.parametrize(
    "policy", [Policy(SCORE, top=2), Policy(mcut=True), Policy(SCORE, {"rating": 9000}, mcut=True)]
)
def test_what_is_placed_takes_nothing_from_other_policies(store: Store, tmp_path: Path, policy: Policy) -> None:
    """The best stored rating and quality come first. The other tags are those that the policy keeps without them."""
    store.export(Format.CSV, tmp_path / "with.csv", policy, rating=Placement.FIRST, quality=Placement.FIRST)
    store.export(Format.CSV, tmp_path / "without.csv", policy, rating=Placement.NONE, quality=Placement.NONE)
    found = rows_by_uri(tmp_path / "with.csv")
    others = rows_by_uri(tmp_path / "without.csv")
    assert sum(map(len, others.values())) > IMAGES
    for uri, scores in zip(store.uris, store.scores, strict=True):
        ranked = sorted(scores, key=lambda tag: (-scores[tag], tag))
        placed = [[tag for tag in ranked if TAGS[tag].category == category] for category in ("rating", "quality")]
        first = [NAMES[tags[0]] for tags in placed if tags]
        expected = [name for name in others.get(uri, []) if name not in first]
        assert found.get(uri, []) == first + expected


def rows_by_uri(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["uri"], []).append(row["tag"])
    return found


def record(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_record_says_what_made_the_export(small: Store, tmp_path: Path) -> None:
    """Enough to repeat the export: model, profile, thresholds, and options that differ from their defaults."""
    with small.database.write() as connection:
        profiles.save(connection, small.model, "mine", Policy(SCORE, {"rating": 9000}), source="a test")
    policy = Policy(tags={"solo": 8000})
    small.export(Format.JSONL, tmp_path / "a.jsonl", policy, profile="mine", replace=(("a_b", "c"),), sort=Sort.NAME)
    said = record(tmp_path / "a.jsonl.export.json")
    assert datetime.fromisoformat(said.pop("exported_at")).tzinfo is not None
    assert said.pop("tagonce")
    assert said.pop("counts")["images"] == 12
    assert said.pop("files") == {"a.jsonl": hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest()}
    assert said == {
        "model": {
            "id": small.model.id,
            "name": "nasty",
            "weights_sha256": "ab" * 32,
            "floor": 0.01,
            "threshold": 0.5,
        },
        "profile": "mine@1",
        "profile_policy": {"threshold": 0.35, "categories": {"rating": 0.9}},
        "policy": {"tags": {"solo": 0.8}},
        "format": "jsonl",
        "options": {"replace": [["a_b", "c"]], "sort": "name"},
        "under": None,
        "query": None,
    }


def test_frequencies_count_what_was_written(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Most frequent first, ties in the model's order."""
    rules = {"replace": (("a_b", "a_c"),), "exclude": ("solo",)}
    store.export(Format.CSV, tmp_path / "a.csv", frequencies=str(tmp_path / "counts.csv"), **rules)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        tags = [(row["tag"], row["category"]) for row in csv.DictReader(file)]
    with (tmp_path / "counts.csv").open(encoding="utf-8", newline="") as file:
        counted = [(row["tag"], row["category"], int(row["images"])) for row in csv.DictReader(file)]
    assert {(tag, category): images for tag, category, images in counted} == {one: tags.count(one) for one in set(tags)}
    assert [images for _, _, images in counted] == sorted((images for _, _, images in counted), reverse=True)
    store.export(Format.CSV, tmp_path / "a.csv", frequencies="-", **rules)
    said = capsys.readouterr().err.splitlines()
    assert said[0].split() == ["tag", "category", "images"]
    assert len(said) == 1 + len(counted)


def test_only_some_of_the_images(store: Store, tmp_path: Path) -> None:
    """Images selected by a prefix of their uri, and by the condition of a search."""
    store.export(Format.CSV, tmp_path / "a.csv", under="s3://b/日本/", where=image_table.c.uri < "s3://b/日本/00100")
    expected = [uri for uri in store.uris if "日本" in uri and uri < "s3://b/日本/00100"]
    assert len(expected) == 25
    assert record(tmp_path / "a.csv.export.json")["counts"]["images"] == 25
    assert list(rows_by_uri(tmp_path / "a.csv")) == [uri for uri in expected if uri in rows_by_uri(tmp_path / "a.csv")]
    with pytest.raises(SettingsError, match="nasty has no predictions under s3://c/ to export"):
        store.export(Format.CSV, tmp_path / "b.csv", under="s3://c/")


@pytest.mark.parametrize(
    ("format_", "given", "named"),
    [
        (Format.CSV, {"separator": ";", "escape": True}, "--separator, --escape"),
        (Format.PARQUET, {"prepend": ("x",)}, "--prepend"),
        (Format.PARQUET_WIDE, {"sort": Sort.NAME}, "--sort"),
        (Format.HYDRUS, {"separator": ","}, "--separator"),
    ],
)
def test_an_option_that_a_format_cannot_show_is_refused(
    small: Store, tmp_path: Path, format_: Format, given: dict[str, Any], named: str
) -> None:
    with pytest.raises(SettingsError, match=f"--format {format_} does not take {named}"):
        small.export(format_, tmp_path / "x", **given)


# ── S3 ──


@pytest.mark.parametrize("format_", [Format.JSONL, Format.CSV, Format.KOHYA])
def test_one_object_has_the_bytes_of_the_file(small: Store, tmp_path: Path, bucket: str, format_: Format) -> None:
    small.export(format_, tmp_path / "file")
    said = small.export(format_, f"s3://{bucket}/deep/ä file")
    assert said == f"12 images written to s3://{bucket}/deep/ä file."
    client = s3_client()
    content = client.get_object(Bucket=bucket, Key="deep/ä file")["Body"].read()
    made_by = json.loads(client.get_object(Bucket=bucket, Key="deep/ä file.export.json")["Body"].read())
    client.close()
    assert content == (tmp_path / "file").read_bytes()
    assert made_by["counts"]["images"] == 12
    with pytest.raises(SettingsError, match="is a prefix, and this format is one object"):
        small.export(format_, f"s3://{bucket}/deep/")


def test_parquet_metadata_and_sidecars_in_s3(small: Store, bucket: str) -> None:
    small.export(Format.PARQUET, f"s3://{bucket}/long.parquet")
    small.export(Format.IMAGEFOLDER, f"s3://{bucket}/set/")
    small.export(Format.HYDRUS, f"s3://{bucket}/tags")
    client = s3_client()
    keys = [one["Key"] for one in client.list_objects_v2(Bucket=bucket)["Contents"]]
    table = pq.read_table(io.BytesIO(client.get_object(Bucket=bucket, Key="long.parquet")["Body"].read()))
    client.close()
    assert table.num_rows == sum(map(len, small.own()))
    assert sorted(keys) == sorted(
        [
            "long.parquet",
            "long.parquet.export.json",
            "set/metadata.jsonl",
            "set/metadata.jsonl.export.json",
            *(f"tags/{uri.removeprefix('s3://b/')}.txt" for uri in small.uris),
            "tags/tagonce-export.json",
        ]
    )


# ── nothing half ──


@pytest.fixture(scope="module")
def large_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An SQLite database with enough images that an export takes a while."""
    url = f"sqlite:///{tmp_path_factory.mktemp('large') / 'tags.db'}"
    database = open_database(url)
    fill(database, 12_000)
    database.close()
    return url


SINGLE_FILES = [Format.JSONL, Format.CSV, Format.KOHYA, Format.PARQUET, Format.PARQUET_WIDE]


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """No file of this process grows beyond 80 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("format_", SINGLE_FILES)
def test_an_export_that_fails_half_way_leaves_the_old_file(
    large_store: str, tmp_path: Path, format_: Format, invoke: Callable[..., Outcome], small_files_only: None
) -> None:
    """As on a full disk: a limit stops the growth of the file."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("old")
    command = ("export", "--format", format_, "--out", "out/file", "-t", "0.02", "-d", large_store, "--overwrite")
    failed = invoke(*command)
    assert failed.code == 1, failed.err
    assert "error: Cannot write out/file: File too large. --out names another place." in failed.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]
    assert (tmp_path / "out" / "file").read_text() == "old"


@pytest.mark.parametrize("format_", SINGLE_FILES)
def test_an_export_that_is_killed_leaves_no_file_of_that_name(
    large_store: str, tmp_path: Path, format_: Format, start_tagonce: Callable[..., Any]
) -> None:
    (tmp_path / "out").mkdir()
    process = start_tagonce("export", "--format", format_, "--out", "out/file", "-t", "0.02", "-d", large_store)
    give_up = time.monotonic() + 60
    while not any(path.stat().st_size for path in (tmp_path / "out").iterdir()):
        assert process.popen.poll() is None, process.words()
        assert time.monotonic() < give_up
    process.signal(signal.SIGKILL)
    process.wait()
    assert [path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".tagonce-")] == []


def test_the_reader_of_a_stream_may_go_away(large_store: str, tmp_path: Path) -> None:
    """`tagonce export | head` is no error and shows no traceback."""
    command = f"{script()} export --format jsonl -t 0.02 -d {large_store} | head -n 1"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["uri"].startswith("s3://b/")
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
