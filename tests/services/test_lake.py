"""The lake: its files have every stored score, later runs write changed blocks only, and the page's queries run."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from db.database import Database, open_database
from db.errors import SettingsError, StopError
from db.ledger import forget, gone, models, results
from db.ledger.images import Reference, register
from db.ledger.models import Model, Tag
from db.ledger.results import Prediction
from db.policy.policies import Policy, resolve
from db.postings.build import drop_postings, update_postings
from db.read.histograms import histogram
from db.read.tag_batches import read_tag_batches
from db.read.tag_counts import tag_counts
from db.scope import Gone
from db.scores import Scores
from producer.storage.s3_client import s3_client
from tagonce.export.choices import Existing, Format
from tagonce.export.formats import FORMATS
from tagonce.export.job import Export
from tagonce.export.run import run
from tagonce.options.policy_options import resolve_policy
from tests.fixtures.command import Outcome
from tests.fixtures.indexed import SECOND_BLOCK, straddle_blocks

PAGE = (Path(__file__).parents[2] / "docs" / "lake.md").read_text(encoding="utf-8")
NAMES = ("animal", "cat", "dog", "car")
WIDE = 50_000
"""Tags of a model whose tag ids do not fit a smallint."""
IMAGES = 40
FLOOR = 100
Row = list[tuple[int, int]]
"""Tag ids and scores of an image, ascending by score, ties by tag id."""


@dataclass
class Store:
    """A database with images in two blocks, and its predictions in memory."""

    database: Database
    model: Model
    rows: dict[int, Row]
    """By image id."""

    def predict(self, rows: dict[int, Row]) -> None:
        """Store predictions."""
        done = []
        for image_id, row in rows.items():
            tags, scores = np.array(row, dtype=np.int32).reshape(-1, 2).T
            done.append(Prediction(image_id, "1", 1, 4, 3, "png", bytes(32), Scores(tags, scores.astype(np.int16))))
        with self.database.write() as connection:
            results.save(connection, self.model.id, done, [])
        self.rows |= rows

    def export(self, out: Path | str, which: Gone = Gone.EXCLUDE, **given: Any) -> str:
        with self.database.read(gone=which) as connection:
            spec = FORMATS[Format.PARQUET_PACKED]
            resolved = resolve_policy(connection, self.model, Policy(self.model.floor))
            return run(connection, Export(spec, str(out), spec.options({}), resolved, **given))

    def index(self) -> None:
        update_postings(self.database, self.model)


def fill(database: Database, tags: int) -> Store:
    """Three images in the first block and the rest in the second one. The first image has no score."""
    straddle_blocks(database)
    named = [Tag(NAMES[one] if one < len(NAMES) else f"tag_{one}", "odd" if one % 2 else None) for one in range(tags)]
    with database.write() as connection:
        model = models.register(
            connection, name="lake", weights_sha256="a", spec={}, tag_list=named, floor=FLOOR, default_threshold=3500
        )
        ids = register(connection, [Reference(f"s3://b/{one:02}.jpg", "1", 1) for one in range(IMAGES)], model.id)
    rng = np.random.default_rng(3)
    rows: dict[int, Row] = {ids[0]: []}
    for image_id in ids[1:]:
        chosen = rng.choice(tags, rng.integers(0, 6), replace=False).tolist()
        scores = rng.choice([100, 1999, 2000, 3499, 3500, 4999, 5000, 5999, 6000, 10_000], len(chosen)).tolist()
        rows[image_id] = sorted(zip(chosen, scores, strict=True), key=lambda pair: (pair[1], pair[0]))
    store = Store(database, model, {})
    store.predict(rows)
    return store


@pytest.fixture
def store(database: Database) -> Store:
    """With current postings."""
    filled = fill(database, 5)
    filled.index()
    return filled


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return found


def rows_in(folder: Path) -> dict[int, Row]:
    """The rows of the files that a glob finds, which are those of the manifest."""
    files = sorted(folder.glob("blocks/*.parquet"))
    assert [str(file.relative_to(folder)) for file in files] == [one["file"] for one in manifest(folder)["blocks"]]
    rows = pa.concat_tables([pq.read_table(file) for file in files]).to_pylist()
    assert [row["image_id"] for row in rows] == sorted(row["image_id"] for row in rows)
    return {row["image_id"]: list(zip(row["tag_ids"], row["scores"], strict=True)) for row in rows}


def files_of(folder: Path) -> dict[str, int]:
    """The inode of each file: another one where it was written again."""
    return {file.name: file.stat().st_ino for file in folder.glob("blocks/*.parquet")}


# ── content ──


def test_the_files_have_every_stored_score(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more tags than a smallint counts, in several row groups, also the images that have none."""
    monkeypatch.setattr("db.export.lake.IMAGES_AT_ONCE", 3)
    monkeypatch.setattr("db.export.lake._SCORES_IN_GROUP", 25)
    store = fill(database, WIDE)
    said = store.export(tmp_path / "lake")
    assert said.startswith(f"2 blocks written to {tmp_path / 'lake'}/, 0 unchanged. 2 blocks without a current index")
    assert rows_in(tmp_path / "lake") == store.rows
    assert max(tag for row in store.rows.values() for tag, _ in row) > np.iinfo(np.int16).max
    file = pq.ParquetFile(tmp_path / "lake" / "blocks" / "00001.parquet")
    assert file.metadata.num_row_groups == 4
    assert {file.metadata.row_group(0).column(one).compression for one in range(4)} == {"ZSTD"}
    kinds = {field.name: field.type for field in file.schema_arrow}
    assert [str(kind) for kind in kinds.values()][:2] == ["int64", "string"]
    assert (kinds["tag_ids"].value_type, kinds["scores"].value_type) == (pa.int32(), pa.int16())
    uris = pq.read_table(tmp_path / "lake" / "blocks")["uri"].to_pylist()
    assert uris == [f"s3://b/{one:02}.jpg" for one in range(IMAGES)]
    tags = pq.read_table(tmp_path / "lake" / "tags.parquet")
    assert tags.slice(0, 2).to_pylist() == [
        {"tag_id": 0, "name": "animal", "category": None},
        {"tag_id": 1, "name": "cat", "category": "odd"},
    ]
    assert tags.num_rows == WIDE


def test_the_manifest_names_model_and_blocks(store: Store, tmp_path: Path) -> None:
    store.export(tmp_path)
    found = manifest(tmp_path)
    assert (found["format"], found["format_version"], found["floor"]) == ("parquet-packed", 1, FLOOR)
    assert found["model"].items() >= {"id": store.model.id, "name": "lake"}.items()
    assert found["model"]["fingerprint"] == store.model.fingerprint
    scores, tagged = sum(map(len, store.rows.values())), sum(map(bool, store.rows.values()))
    assert (found["images"], found["tagged"], found["tags"]) == (IMAGES, tagged, scores)
    assert [(one["block"], one["file"], one["images"]) for one in found["blocks"]] == [
        (0, "blocks/00000.parquet", 3),
        (1, "blocks/00001.parquet", IMAGES - 3),
    ]
    record = json.loads((tmp_path / "tagonce-export.json").read_text(encoding="utf-8"))
    assert record["policy"] == {"threshold": 0.01}
    assert record["counts"] == {"images": IMAGES, "tagged": tagged, "tags": scores, "blocks": 2, "written": 2}


# ── updates ──


def test_only_changed_blocks_are_written_again(store: Store, tmp_path: Path) -> None:
    assert store.export(tmp_path) == f"2 blocks written to {tmp_path}/, 0 unchanged."
    first = files_of(tmp_path)
    assert store.export(tmp_path) == f"0 blocks written to {tmp_path}/, 2 unchanged."
    assert files_of(tmp_path) == first

    store.predict({SECOND_BLOCK: [(4, 9000)]})
    assert store.export(tmp_path, dry=True).endswith(f"1 block written to {tmp_path}/, 1 unchanged.")
    assert files_of(tmp_path) == first
    note = " 1 block without a current index will be written again next time: run `tagonce index` before an export."
    assert store.export(tmp_path) == f"1 block written to {tmp_path}/, 1 unchanged.{note}"
    assert rows_in(tmp_path) == store.rows
    second = files_of(tmp_path)
    assert second["00000.parquet"] == first["00000.parquet"]
    assert second["00001.parquet"] != first["00001.parquet"]

    store.index()
    assert store.export(tmp_path) == f"1 block written to {tmp_path}/, 1 unchanged."
    assert store.export(tmp_path) == f"0 blocks written to {tmp_path}/, 2 unchanged."
    assert store.export(tmp_path, existing=Existing.OVERWRITE) == f"2 blocks written to {tmp_path}/, 0 unchanged."
    (tmp_path / "blocks" / "00000.parquet").unlink()
    assert store.export(tmp_path) == f"1 block written to {tmp_path}/, 1 unchanged."
    assert rows_in(tmp_path) == store.rows


def test_postings_that_were_built_anew_have_another_version(store: Store, tmp_path: Path) -> None:
    """Otherwise a change between two builds would not be seen."""
    store.export(tmp_path)
    drop_postings(store.database, store.model)
    store.predict({SECOND_BLOCK: [(4, 9000)]})
    store.index()
    assert store.export(tmp_path) == f"2 blocks written to {tmp_path}/, 0 unchanged."
    assert rows_in(tmp_path) == store.rows


def test_images_that_are_gone_leave_the_files(store: Store, tmp_path: Path) -> None:
    """Marks change no prediction, so the versions of postings stay."""
    store.export(tmp_path)
    with store.database.write() as connection:
        gone.mark(connection, [SECOND_BLOCK])
    assert store.export(tmp_path) == f"1 block written to {tmp_path}/, 1 unchanged."
    present = {image_id: row for image_id, row in store.rows.items() if image_id != SECOND_BLOCK}
    assert rows_in(tmp_path) == present
    assert store.export(tmp_path, Gone.INCLUDE) == f"2 blocks written to {tmp_path}/, 0 unchanged."
    assert rows_in(tmp_path) == store.rows
    store.export(tmp_path)
    with store.database.write() as connection:
        gone.unmark(connection, [SECOND_BLOCK])
    assert store.export(tmp_path) == f"1 block written to {tmp_path}/, 1 unchanged."
    assert rows_in(tmp_path) == store.rows


def forget_first_block(store: Store) -> dict[int, Row]:
    """Returns what is left."""
    prefixes = [f"s3://b/{one:02}.jpg" for one in range(3)]
    forget.forget(store.database, forget.selection(prefixes, only_gone=False), keep_labels=False)
    store.index()
    return {image_id: row for image_id, row in store.rows.items() if image_id >= SECOND_BLOCK}


def test_the_file_of_a_block_without_images_is_removed(store: Store, tmp_path: Path) -> None:
    store.export(tmp_path)
    left = forget_first_block(store)
    (tmp_path / "blocks" / "mine.txt").write_text("mine")
    assert store.export(tmp_path) == f"0 blocks written to {tmp_path}/, 1 unchanged, 1 removed."
    assert rows_in(tmp_path) == left
    assert (tmp_path / "blocks" / "mine.txt").exists()


def test_an_export_that_stops_between_two_files_leaves_the_old_manifest(store: Store, tmp_path: Path) -> None:
    """The folder in place of the second file is an obstacle that no run replaces."""
    store.export(tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()
    store.predict({SECOND_BLOCK - 1: [(3, 9000)], SECOND_BLOCK: [(4, 9000)]})
    store.index()
    obstacle = tmp_path / "blocks" / "00001.parquet"
    obstacle.unlink()
    obstacle.mkdir()
    first = files_of(tmp_path)["00000.parquet"]
    with pytest.raises(StopError, match=r"Cannot write .*00001.parquet: Is a directory"):
        store.export(tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert files_of(tmp_path)["00000.parquet"] != first
    assert pq.read_table(tmp_path / "blocks" / "00000.parquet").num_rows == 3
    obstacle.rmdir()
    assert store.export(tmp_path) == f"2 blocks written to {tmp_path}/, 0 unchanged."
    assert rows_in(tmp_path) == store.rows


def test_below_a_prefix_in_s3(store: Store, tmp_path: Path, bucket: str) -> None:
    out = f"s3://{bucket}/a/lake"
    assert store.export(out) == f"2 blocks written to {out}/, 0 unchanged."
    assert store.export(out) == f"0 blocks written to {out}/, 2 unchanged."
    left = forget_first_block(store)
    left[SECOND_BLOCK] = [(4, 9000)]
    store.predict({SECOND_BLOCK: [(4, 9000)]})
    store.index()
    assert store.export(out) == f"1 block written to {out}/, 0 unchanged, 1 removed."
    client = s3_client()
    keys = [one["Key"] for one in client.list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys == [
        f"a/lake/{name}" for name in ("blocks/00001.parquet", "manifest.json", "tagonce-export.json", "tags.parquet")
    ]
    (tmp_path / "blocks").mkdir()
    for key in keys:
        client.download_file(bucket, key, str(tmp_path / key.removeprefix("a/lake/")))
    client.close()
    assert rows_in(tmp_path) == left


# ── refusals ──


def test_the_folder_of_another_model_is_refused(store: Store, tmp_path: Path) -> None:
    store.export(tmp_path)
    before = files_of(tmp_path)
    with store.database.write() as connection:
        other = models.register(
            connection, name="other", weights_sha256="b", spec={}, tag_list=[Tag("x")], floor=0, default_threshold=5000
        )
    another = Store(store.database, other, {})
    another.predict({SECOND_BLOCK: [(0, 5000)]})
    with pytest.raises(SettingsError, match=r"has scores of the model lake \(id .*, and this export is of other \(id"):
        another.export(tmp_path, existing=Existing.OVERWRITE)
    assert files_of(tmp_path) == before


def test_a_newer_format_is_refused(store: Store, tmp_path: Path) -> None:
    store.export(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest(tmp_path) | {"format_version": 2}))
    with pytest.raises(SettingsError, match="has format version 2, and this tagonce writes version 1"):
        store.export(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "tags.parquet", "blocks/00007.parquet"])
def test_files_of_other_origin_need_overwrite(store: Store, tmp_path: Path, name: str) -> None:
    """Those that would be read as blocks are removed then."""
    (tmp_path / "blocks").mkdir()
    (tmp_path / name).write_text("{}")
    with pytest.raises(SettingsError, match=f"has a file {name} and no manifest of this format"):
        store.export(tmp_path)
    store.export(tmp_path, existing=Existing.OVERWRITE)
    assert rows_in(tmp_path) == store.rows


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-t", "0.5"), "does not take options of thresholds."),
        (("--top", "3"), "does not take options of thresholds."),
        (("--profile", "x"), "does not take options of thresholds."),
        (("--under", "s3://b/", "--query", "cat"), "does not take --under, --query."),
        (("--frequencies", "-"), "does not take --frequencies."),
        (("--extension", ".caption"), "does not take --extension."),
        (("--escape", "--max-tags", "3"), "does not take --escape, --max-tags."),
        (("--merge",), "--merge is for sidecars"),
        (("--root", "/x"), "--root needs --out and a format with sidecars"),
        (("--out", "-"), "cannot go to standard output"),
        (("--out", ""), "--out is empty"),
    ],
)
def test_options_without_an_effect_are_refused(
    page_lake: Store, invoke: Callable[..., Outcome], tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    url = str(page_lake.database.engine.url)
    refused = invoke("export", "-f", "parquet-packed", "-d", url, "--out", tmp_path / "x", *options)
    assert (refused.code, said in refused.err) == (2, True), refused.err
    assert not (tmp_path / "x").exists()


def test_the_command_says_what_it_wrote(page_lake: Store, invoke: Callable[..., Outcome], tmp_path: Path) -> None:
    command = ("export", "-f", "parquet-packed", "-d", str(page_lake.database.engine.url))
    assert "is a folder: name it with --out" in invoke(*command).err
    done = invoke(*command, "--out", "lake")
    assert done.err.startswith("lake at 0.01: 2 blocks written to lake/, 0 unchanged."), done.err
    assert rows_in(tmp_path / "lake") == page_lake.rows


# ── the page ──


@pytest.fixture(scope="module")
def page_lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A lake in the folder `lake` beside an SQLite database."""
    folder = tmp_path_factory.mktemp("page")
    database = open_database(f"sqlite:///{folder / 'tags.db'}")
    store = fill(database, 6)
    store.export(folder / "lake")
    yield store
    database.close()


@pytest.fixture(scope="module")
def own(page_lake: Store) -> dict[str, list[tuple[Any, ...]]]:
    """The answers of tagonce itself, by the sentence above a query."""
    model = page_lake.model
    with page_lake.database.read() as connection:
        tags = models.tag_names(connection, model.id)

        def counts(policy: Policy) -> list[tuple[Any, ...]]:
            return [(one.tag, one.images) for one in tag_counts(connection, model, resolve(model, tags, policy))]

        kept = Policy(10_001, tags={"animal": 5000, "dog": 2000})
        uris = [
            (uri,)
            for batch in read_tag_batches(connection, model, resolve(model, tags, kept))
            for uri, start, end in zip(batch.uris, batch.offsets, batch.offsets[1:], strict=False)
            if batch.tag_ids[start:end].tolist() == [NAMES.index("animal")]
        ]
        tenths = histogram(connection, model, NAMES.index("cat"), 10).counts
        cats = dict(counts(Policy(5000)))["cat"]
        own = Policy(3500, tags={"cat": 6000, "dog": 2000})
        return {
            "Images with `cat` at or above 0.5": [(cats,)],
            "Images of each tag at 0.35": counts(Policy(3500)),
            "Images of each tag, with a separate threshold for two tags and 0.35 for the rest": counts(own),
            "Images with `animal` at 0.5 and without `dog` at 0.2": uris,
            "The scores of `cat` in tenths, of which the last one includes 1": [
                (tenth, images) for tenth, images in enumerate(tenths) if images
            ],
        }


def folder_of(store: Store) -> Path:
    """The folder that contains `lake/`."""
    return Path(str(store.database.engine.url.database)).parent


def queries(engine: str) -> dict[str, str]:
    """The queries in a dialect by the sentence above each of them."""
    found = re.findall(rf"\n([^\n]+), in \w+:\n\n```{engine.lower()}\n(.*?);\n```", PAGE, re.DOTALL)
    assert len(found) == PAGE.count(f"```{engine.lower()}\n")
    return dict(found)


def test_duckdb_gives_the_same_answers(page_lake: Store, own: dict[str, list[tuple[Any, ...]]]) -> None:
    with chdir(folder_of(page_lake)), duckdb.connect() as connection:
        found = {sentence: connection.execute(query).fetchall() for sentence, query in queries("DuckDB").items()}
    assert found == own


IN_CLICKHOUSE = """
import chdb, json, sys
found = {}
for sentence, query in json.load(sys.stdin).items():
    found[sentence] = json.loads(chdb.query(query, "JSONCompact").bytes())["data"]
json.dump(found, sys.stdout)
"""


def test_clickhouse_gives_the_same_answers(page_lake: Store, own: dict[str, list[tuple[Any, ...]]]) -> None:
    """In a process of its own: it handles signals and starts threads, and other tests fork."""
    done = subprocess.run(
        [sys.executable, "-c", IN_CLICKHOUSE],
        input=json.dumps(queries("ClickHouse")),
        cwd=folder_of(page_lake),
        capture_output=True,
        text=True,
        check=True,
    )
    found = {sentence: [tuple(row) for row in rows] for sentence, rows in json.loads(done.stdout).items()}
    assert found == own


def test_spark_has_the_same_questions(own: dict[str, list[tuple[Any, ...]]]) -> None:
    """Its queries are not run."""
    assert queries("Spark").keys() == own.keys()
