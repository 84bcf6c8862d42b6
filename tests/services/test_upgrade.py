"""Data stored by older versions of this program is kept and correct; a database of a newer version is refused.

The databases in tests/fixtures/databases were filled by those versions: its README says how.
"""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import DBAPIError

from db import migrate, schema
from db.database import Database, open_database
from db.errors import ModelError
from db.ledger import images, models
from db.ledger.images import stored_version
from producer.queue import broker
from producer.sources import references
from tagonce import from_settings, settings
from tagonce.local.run import LocalRun, LocalWorker
from tests.fixtures import checkpoints
from tests.fixtures.command import Outcome
from tests.fixtures.databases import collection
from tests.fixtures.databases.restored import HEAD, LEVELS, restore
from tests.fixtures.photos import MAKER
from tests.fixtures.servers import RedisServer
from tests.services.test_schema import _revision, differences
from workers.models.folder import read_folder

LONG_VERSIONS = ("0001", "0002")
"""Levels at which versions of images were stored in full."""
WITH_PROFILES = LEVELS[1:]
WITH_LABELS = LEVELS[4:]
EVERY_COMMAND = (
    ("worker", "--model", "tiny", "--broker", "redis://127.0.0.1:1/0"),
    ("enqueue", "photos", "--model", "tiny", "--broker", "redis://127.0.0.1:1/0"),
    ("tag", "photos", "--model", "tiny"),
    ("migrate",),
    ("status",),
    ("retry",),
    ("export",),
    ("search", "cat"),
    ("counts",),
    ("thresholds", "list"),
    ("index",),
)


MANY_IMAGES = (
    """
    with recursive n(n) as (select 1000 union all select n + 1 from n where n < 25000)
    insert into images (id, uri, version, added_at) select n, 's3://b/' || n, '', '2026-01-01 00:00:00.000000' from n
    """,
    """
    insert into predictions (model_id, image_id, image_version, predicted_at)
    select 1, id, version, added_at from images where id >= 1000
    """,
    """
    insert into tag_scores (model_id, image_id, tag_id, score)
    select 1, i.id, t.tag_id, (i.id * 7919 + t.tag_id * 31) % 10000
    from images i join tags t on t.model_id = 1 where i.id >= 1000
    """,
)
"""25 pieces of a migration."""
UPGRADE = """
import resource, sys
from db.database import open_database
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
open_database(sys.argv[1], report=lambda progress: print(progress.done, progress.total, flush=True))
"""
"""Prints how far it is before the first piece and after each one."""


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def old(level: str, new_database_url: str, tmp_path: Path) -> str:
    """The URL of a database of an older version."""
    restore(level, new_database_url, tmp_path)
    return new_database_url


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The folder of the databases' images, in its state of that time."""
    folder = collection.write_photos(tmp_path / "photos")
    collection.change(folder)
    collection.overwrite(folder)
    collection.add(folder)
    return folder


def rows(url: str, *tables: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of these tables, by plain SQL: older versions had other columns."""
    database = Database(url)
    with database.read() as connection:
        found = {}
        for table in tables:
            result = connection.execute(text(f"select * from {table}"))  # noqa: S608
            found[table] = sorted(
                ({name: _plain(value) for name, value in row.items()} for row in result.mappings()), key=str
            )
    database.close()
    return found


def _plain(value: Any) -> Any:
    """Values with arrays as lists, which can be compared."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def everything(url: str) -> dict[str, list[dict[str, Any]]]:
    database = Database(url)
    with database.read() as connection:
        names = inspect(connection).get_table_names()
    database.close()
    return rows(url, *names)


def test_all_that_an_older_version_stored_is_there_unchanged(old: str, level: str) -> None:
    tables = ["images", "models", "tags", "predictions", "failures", "tag_scores", "tag_probabilities", "deliveries"]
    tables += ["profiles", "profile_thresholds"] if level in WITH_PROFILES else []
    tables += ["labels"] if level in WITH_LABELS else []
    before = rows(old, *tables)
    assert level not in WITH_LABELS or len(before["labels"]) == 4
    assert [len(before[table]) for table in ("images", "models", "predictions", "failures")] == [8, 2, 10, 4]
    for row in (*before["images"], *before["predictions"], *before["failures"], *before.get("labels", ())):
        column = "version" if "version" in row else "image_version"
        assert (len(row[column]) > 7) == (level in LONG_VERSIONS)
        row[column] = stored_version(row[column])
    opened = open_database(old)
    with opened.read() as connection:
        assert migrate.level(connection).present == HEAD
        assert differences(connection) == []
    opened.close()
    after = rows(old, *tables, "files")
    of_image = {row.pop("image_id"): row for row in after.pop("files")}
    assert len(of_image) == 4
    for row in after["images"]:
        file = of_image.get(row["id"], {"bytes": row["bytes"], "image_version": row["version"]})
        assert (file.pop("bytes"), file.pop("image_version")) == (row["bytes"], row["version"])
        row.update(dict.fromkeys(("width", "height", "format", "sha256")) | file)
    after["images"].sort(key=str)
    after["predictions"] = [{name: row[name] for name in before["predictions"][0]} for row in after["predictions"]]
    for table, found in before.items():
        assert sorted(after[table], key=lambda row: sorted(map(str, row.items()))) == sorted(
            found, key=lambda row: sorted(map(str, row.items()))
        )


def test_reading_asks_for_the_upgrade_and_then_answers_as_before(
    old: str, level: str, invoke: Callable[..., Outcome]
) -> None:
    """Thresholds, searches, exports and profiles. Each names which of two models of the same name it read."""
    database = ("--database", old)
    scores = {
        (row["model_id"], row["uri"], row["tag"]): round(10_000 * float(row["probability"]))
        for row in rows(old, "tag_probabilities")["tag_probabilities"]
    }
    if level != HEAD:
        refused = invoke("export", *database)
        assert (refused.code, "older tagonce" in refused.err) == (1, True)
    assert invoke("migrate", *database).code == 0

    counted = invoke("counts", "--threshold", "0.5", "--model", "1", "--json", *database)
    found = {one["tag"]: one["images"] for one in map(json.loads, counted.out.splitlines())}
    kept = [tag for (model, _uri, tag), score in scores.items() if model == 1 and score >= 5000]
    assert found == {tag: kept.count(tag) for tag in set(kept)}

    searched = invoke("search", "water:0.42", "--model", "1", "--json", *database)
    assert {json.loads(line)["uri"] for line in searched.out.splitlines()} == {
        uri for (model, uri, tag), score in scores.items() if (model, tag) == (1, "water") and score >= 4200
    }
    exported = invoke("export", "--format", "jsonl", "--threshold", "0.9", *database)
    assert "tiny (id 2, weights 93bc7f14, floor 0.3) at 0.9: " in exported.err
    captions = {one["uri"]: set(one["caption"].split(", ")) for one in map(json.loads, exported.out.splitlines())}
    assert len(captions) == 5
    assert all(tags == {"dog", "bird", "tree"} for tags in captions.values())
    if level in WITH_PROFILES:
        assert invoke("export", "--profile", "mine", "--model", "1", "--format", "jsonl", *database).code == 0
        of_another = invoke("export", "--profile", "mine", "--format", "jsonl", *database)
        assert (of_another.code, "no profile 'mine'" in of_another.err) == (2, True)


def test_only_what_is_new_is_tagged(
    old: str, photos: Path, tmp_path: Path, redis_server: RedisServer, invoke: Callable[..., Outcome]
) -> None:
    """The model is recognised by its files. Images that are tagged or failed are not sent again."""
    from workers.pipeline import Pipeline

    config = settings.load(
        database_url=old, model=str(collection.write_model(tmp_path / "tiny")), batch_size=4, decoders=1, device="cpu"
    )
    with from_settings.stored(config, create=True) as database:
        spec, model = from_settings.find_and_register(database, config)
        assert model.id == 1
        before = rows(old, "predictions", "failures", "tag_scores")
        send = ("enqueue", photos, "--model", "1", "--database", old, "--broker", redis_server.url, "--json")
        assert invoke(*send).json == {"seen": 8, "sent": 2}
        with database.read() as connection:
            left = images.pending_after(connection, model.id, 0, 100)
            uris = list(connection.scalars(select(schema.images.c.uri).where(schema.images.c.id.in_(left))))
        assert {Path(uri).name for uri in uris} == {"overwritten.ppm", "waiting.ppm"}
        report = Pipeline(database, model, spec, from_settings.worker_options(config, spec)).run(left)
        assert (report.done, report.failed) == (2, 0)
    assert invoke(*send).json == {"seen": 8, "sent": 0}
    after = rows(old, "predictions", "failures", "tag_scores")
    assert after["failures"] == before["failures"]
    for table in ("predictions", "tag_scores"):
        others = [
            row for row in before[table] if (row["model_id"], row["image_id"]) not in {(1, left[0]), (1, left[1])}
        ]
        assert len(others) < len(after[table])
        assert all(row in after[table] for row in others)


def test_two_processes_may_bring_a_database_forward_at_once(new_database_url: str, tmp_path: Path) -> None:
    """As with workers of the new version that start together."""
    restore("0001", new_database_url, tmp_path)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(_revision, [new_database_url] * 2)) == [HEAD] * 2
    assert len(rows(new_database_url, "predictions")["predictions"]) == 10


def test_an_upgrade_that_fails_midway_leaves_the_old_database(new_database_url: str, tmp_path: Path) -> None:
    """An existing table makes the last migration fail after the others. Without it the upgrade succeeds."""
    restore("0001", new_database_url, tmp_path)
    blocked = Database(new_database_url)
    with blocked.write() as connection:
        connection.execute(text("create table gone (mine integer)"))
    blocked.close()
    before = everything(new_database_url)
    with pytest.raises(Exception, match="gone.*already exists") as caught:
        open_database(new_database_url)
    assert isinstance(caught.value, DBAPIError) or isinstance(caught.value.__cause__, DBAPIError)
    assert everything(new_database_url) == before
    assert before["alembic_version"] == [{"version_num": "0001"}]
    with blocked.write() as connection:
        connection.execute(text("drop table gone"))
    blocked.close()
    open_database(new_database_url).close()
    assert rows(new_database_url, "alembic_version")["alembic_version"] == [{"version_num": HEAD}]


def test_an_index_of_the_users_own_on_a_column_that_moves_does_not_stop_an_upgrade(
    new_database_url: str, tmp_path: Path
) -> None:
    """It is dropped with the column; one on another column stays."""
    restore("0006", new_database_url, tmp_path)
    opened = Database(new_database_url)
    with opened.write() as connection:
        for number, columns in enumerate(("width", "format, id", "(width * height)", "version")):
            connection.execute(text(f"create index my_own_{number} on images ({columns})"))
    opened.close()
    upgraded = open_database(new_database_url)
    with upgraded.read() as connection:
        found = [one["name"] for one in inspect(connection).get_indexes("images") if "my_own" in str(one["name"])]
    upgraded.close()
    assert found == ["my_own_3"]


@pytest.fixture
def large(sqlite_url: str, tmp_path: Path) -> tuple[str, list[Any]]:
    """The URL of a database with rows for many pieces, and all its scores."""
    restore("0006", sqlite_url, tmp_path)
    database = Database(sqlite_url)
    with database.write() as connection:
        for statement in MANY_IMAGES:
            connection.execute(text(statement))
    database.close()
    return sqlite_url, _all_scores(sqlite_url)


def _begin_upgrade(url: str, *largest_file: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", UPGRADE, url, *largest_file]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.long)])
def test_an_upgrade_in_pieces_that_is_killed_goes_on(
    large: tuple[str, list[Any]], kills: int, invoke: Callable[..., Outcome]
) -> None:
    """Each time after some pieces, and at any moment of the next one. No score is lost, and none is moved twice."""
    url, before = large
    chance = random.Random(kills)
    done = [0]
    for _ in range(kills):
        process = _begin_upgrade(url)
        assert process.stdout is not None
        for _ in range(chance.randint(1, 3)):
            found, total = map(int, process.stdout.readline().split())
        time.sleep(chance.uniform(0, 0.03))
        process.kill()
        process.communicate()
        assert total == 24_011
        assert done[-1] <= found < total
        done.append(found)
    assert done[-1] > 0
    refused = invoke("status", "--database", url)
    assert (refused.code, "not complete" in refused.err, "tagonce migrate" in refused.err) == (1, True, True)
    assert "Traceback" not in refused.err
    assert _revision(url) == HEAD
    assert _all_scores(url) == before


def test_an_upgrade_that_fills_the_disk_goes_on_when_there_is_space(large: tuple[str, list[Any]]) -> None:
    """A limit of the size of files stands for the disk: the write-ahead log reaches it after some pieces."""
    url, before = large
    process = _begin_upgrade(url, str(2 << 20))
    said, error = process.communicate()
    assert process.returncode != 0
    assert "DatabaseError: The database" in error
    assert "Check the disk" in error
    done, total = map(int, said.splitlines()[-1].split())
    assert 0 < done < total
    assert _revision(url) == HEAD
    assert _all_scores(url) == before


def test_an_upgrade_in_pieces_does_not_let_the_file_grow(large: tuple[str, list[Any]]) -> None:
    """Each piece deletes its old rows first, and SQLite uses their pages for the new ones."""
    url, _before = large
    file = Path(url.removeprefix("sqlite:///"))
    size = file.stat().st_size
    assert _revision(url) == HEAD
    assert file.stat().st_size < 1.01 * size


def test_processes_take_turns_at_the_pieces_of_an_upgrade(large: tuple[str, list[Any]]) -> None:
    url, before = large
    processes = [_begin_upgrade(url) for _ in range(2)]
    for process in processes:
        _said, error = process.communicate()
        assert (process.returncode, error) == (0, "")
    assert _all_scores(url) == before


def test_an_upgrade_without_the_disk_space_for_it_changes_nothing(
    sqlite_url: str, tmp_path: Path, invoke: Callable[..., Outcome]
) -> None:
    """A hole at the end makes the file large; SQLite counts pages by its header and does not see it."""
    restore("0006", sqlite_url, tmp_path)
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    before = everything(sqlite_url)
    os.truncate(file, 25 * shutil.disk_usage(tmp_path).free)
    refused = invoke("migrate", "--database", sqlite_url)
    assert refused.code == 1
    assert "MB of free disk space, and" in refused.err
    assert "Nothing was changed." in refused.err
    assert everything(sqlite_url) == before


def test_migrate_says_what_an_upgrade_needs_and_how_to_return_the_space(
    sqlite_url: str, tmp_path: Path, invoke: Callable[..., Outcome]
) -> None:
    restore("0006", sqlite_url, tmp_path)
    said = invoke("migrate", "--database", sqlite_url)
    assert said.code == 0
    assert "10 of 10 images are converted" in said.err
    assert "It needs 67 MB of free disk space; " in said.err
    assert f"sqlite3 {sqlite_url.removeprefix('sqlite:///')} vacuum" in said.err
    again = invoke("migrate", "--database", sqlite_url)
    assert (again.code, "converted" in again.err, "vacuum" in again.err) == (0, False, False)


def _all_scores(url: str) -> list[Any]:
    database = Database(url)
    with database.read() as connection:
        found = list(connection.execute(text("select * from tag_scores order by model_id, image_id, tag_id")))
    database.close()
    return found


def test_every_command_refuses_a_newer_database_and_writes_nothing(
    new_database_url: str, photos: Path, tmp_path: Path, invoke: Callable[..., Outcome]
) -> None:
    restore(LEVELS[-1], new_database_url, tmp_path)
    collection.write_model(tmp_path / "tiny")
    opened = Database(new_database_url)
    with opened.write() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    opened.close()
    before = everything(new_database_url)
    for arguments in EVERY_COMMAND:
        refused = invoke(*arguments, "--database", new_database_url)
        assert refused.code == 1, (arguments, refused)
        assert f"newer tagonce (schema 9999; this one knows up to {HEAD}). Upgrade this program." in refused.err
        assert "Traceback" not in refused.err
    assert everything(new_database_url) == before


# ── models that changed ──


@pytest.fixture
def wd(tmp_path: Path) -> Path:
    return checkpoints.write_wd(tmp_path / "tiny-wd")


def _edit(folder: Path, change: Callable[[str], str]) -> None:
    file = folder / "selected_tags.csv"
    file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")


def _swap(content: str) -> str:
    lines = content.splitlines()
    lines[-1], lines[-2] = lines[-2], lines[-1]
    return "\n".join(lines)


CHANGES: dict[str, Callable[[Path], object]] = {
    "weights": lambda folder: checkpoints.write_wd(folder, seed=5),
    "preprocessing": lambda folder: checkpoints.write_wd(folder, crop_pct=0.9),
    "order of tags": lambda folder: _edit(folder, _swap),
    "a tag renamed": lambda folder: _edit(folder, lambda content: content.replace(",fox,", ",red_fox,")),
    "a category": lambda folder: _edit(folder, lambda content: content.replace(",fox,0", ",fox,4")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_model_that_changed_is_another_model(wd: Path, sqlite_url: str, change: str) -> None:
    """It has its own row, queue and scores. The former model is found again when its files are restored."""
    config = settings.load(database_url=sqlite_url, model=str(wd))
    kept = shutil.copytree(wd, wd.parent / "kept")
    with from_settings.stored(config, create=True) as database:
        _spec, before = from_settings.find_and_register(database, config)
        CHANGES[change](wd)
        _spec, after = from_settings.find_and_register(database, config)
        assert (before.name, after.name) == ("tiny-wd", "tiny-wd")
        assert after.id != before.id
        shutil.copytree(kept, wd, dirs_exist_ok=True)
        assert from_settings.find_and_register(database, config)[1] == before


def test_another_floor_is_another_model_and_the_device_is_not(wd: Path, sqlite_url: str) -> None:
    config = settings.load(database_url=sqlite_url, model=str(wd))
    with from_settings.stored(config, create=True) as database:
        ids = [
            from_settings.find_and_register(database, config.model_copy(update=update))[1].id
            for update in (
                {},
                {"floor": 0.05},
                {"device": "cpu", "precision": "bf16", "batch_size": 3, "compile": True},
            )
        ]
        with database.read() as connection:
            assert [models.title(connection, model)[:9] for model in models.every(connection)] == ["tiny-wd ("] * 2
    assert ids[0] == ids[2] != ids[1]


def test_weights_that_are_replaced_while_a_worker_loads_them_are_refused(wd: Path) -> None:
    """Otherwise scores of the new file would get the hash of the old one. A replacement after loading does no harm."""
    import torch

    from workers.inference.network import load_network

    device = torch.device("cpu")
    spec = read_folder(wd)
    load_network(spec, device, torch.float32)
    spec.weights_sha256()
    load_network(spec, device, torch.float32)
    new = checkpoints.write_wd(wd.parent / "new", seed=6)
    (new / "model.safetensors").rename(spec.weights)
    with pytest.raises(ModelError, match="changed while it was in use. Start again."):
        load_network(spec, device, torch.float32)


def test_a_worker_of_tag_is_not_started_again_with_other_weights(
    wd: Path, sqlite_url: str, redis_server: RedisServer, make_photos: MAKER
) -> None:
    """It would be another model, and the run would wait for ever for a worker to take its chunks."""
    config = settings.load(database_url=sqlite_url, model=str(wd))
    with from_settings.stored(config, create=True) as database:
        spec, model = from_settings.find_and_register(database, config)
        worker = LocalWorker(config, redis_server.url)
        worker._process.signal(signal.SIGKILL)
        checkpoints.write_wd(wd, seed=7)
        app = broker.create_app(redis_server.url, model.id)
        run = LocalRun(database, spec, model, app, worker, lambda _progress: None)
        photos = references(str(make_photos(2)[0].parent))
        with pytest.raises(ModelError, match="changed while it was in use"):
            run.tag(photos, max_waiting=10, chunk_size=1)
        worker.stop()
