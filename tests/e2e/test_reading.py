"""What is done with stored tags, and looking at single images: export, retry, predict, models."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from db.names.uris import file_uri
from tests.e2e.forked import Workers
from tests.e2e.ledger import NOT_STORED, Ledger
from tests.fixtures.checkpoints import TAGS
from tests.fixtures.command import Outcome, wait_until

PHOTOS = 12


@pytest.fixture
def photos(make_photos: Callable[..., list[Path]]) -> list[Path]:
    return make_photos(PHOTOS)


def test_what_is_stored_is_exported_the_same_from_both_databases(
    tagonce: Callable[..., Outcome],
    workers: Workers,
    photos: list[Path],
    jtp1_folder: Path,
    redis_url: str,
    sqlite_url: str,
    postgres_url: str,
    tmp_path: Path,
) -> None:
    """Sidecars and JSON lines are equal byte by byte, and so is every score with a floor of 0. Before that, a file that
    was missing is back, and retried by its reason.
    """
    away = tmp_path / "away.jpg"
    (tmp_path / "list.txt").write_text("\n".join(str(photo) for photo in photos))
    for url in (sqlite_url, postgres_url):
        settings = {"TAGONCE_DATABASE_URL": url, "TAGONCE_BROKER_URL": redis_url, "TAGONCE_BATCH_SIZE": "4"}
        rows = Ledger(url)
        photos[4].rename(away)
        worker = workers.start("--model", jtp1_folder, "--floor", 0, **settings)
        worker.wait_until_ready()
        sent = tagonce("enqueue", "list.txt", "--model", jtp1_folder.name, **settings)
        assert sent.code == 0, sent.err
        wait_until(lambda rows=rows: rows.count() == PHOTOS)
        assert rows.failed() == {file_uri(str(photos[4])): "missing"}
        away.rename(photos[4])
        assert "0 failures cleared" in tagonce("retry", "--reason", "corrupt", **settings).err
        retried = tagonce("retry", "--reason", "missing", **settings)
        assert retried.code == 0, retried.err
        assert "1 failure cleared" in retried.err
        assert "1 image queued" in retried.err
        wait_until(lambda rows=rows: rows.count() == PHOTOS)
        assert rows.failed() == {}
        assert rows.finished() == [file_uri(str(photo)) for photo in photos]
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.words()

    scores = [Ledger(url).scores(len(TAGS)) for url in (sqlite_url, postgres_url)]
    for uri in scores[0]:
        np.testing.assert_array_equal(scores[0][uri], scores[1][uri], err_msg=uri)
        assert (scores[0][uri] != NOT_STORED).all()
    for url, out in ((sqlite_url, "from-sqlite"), (postgres_url, "from-postgresql")):
        to = ("--threshold", "0.2", "--database", url)
        for done in (
            tagonce("export", *to, "--out", out),
            tagonce("export", *to, "--format", "jsonl", "--out", f"{out}/all.jsonl"),
        ):
            assert done.code == 0, done.err
    written = files_in(tmp_path / "from-sqlite")
    assert written == files_in(tmp_path / "from-postgresql")
    assert sorted(written) == sorted(["all.jsonl", *(f"{photo.stem}.txt" for photo in photos)])
    lines = [json.loads(line) for line in written["all.jsonl"].splitlines()]
    assert {line["uri"] for line in lines} == {file_uri(str(photo)) for photo in photos}
    for line in lines:
        assert written[f"{Path(line['uri']).stem}.txt"] == (line["caption"] + "\n").encode()
        assert all(probability >= 0.2 for probability in line["tags"].values())
    streamed = tagonce("export", "--threshold", "0.2", "--format", "jsonl", "--database", sqlite_url)
    assert streamed.out.encode() == written["all.jsonl"]

    kept = photos[0].with_suffix(".txt")
    kept.write_text("mine\n")
    beside = ("export", "--threshold", "0.2", "--database", sqlite_url)
    assert "1 exist and were not changed" in tagonce(*beside).err
    assert kept.read_text() == "mine\n"
    assert tagonce(*beside, "--overwrite").code == 0
    assert {photo.stem: photo.with_suffix(".txt").read_bytes() for photo in photos} == {
        Path(name).stem: content for name, content in written.items() if name != "all.jsonl"
    }


def test_predict_shows_single_images(
    tagonce: Callable[..., Outcome], photos: list[Path], jtp1_folder: Path, tmp_path: Path
) -> None:
    """Every probability as JSON; one that cannot be read is a sentence and exit code 1, and the others are shown."""
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    outcome = tagonce("predict", photos[0], "broken.jpg", photos[1], "--model", jtp1_folder, "--json")
    assert outcome.code == 1
    assert "broken.jpg" in outcome.err
    assert "unsupported" in outcome.err
    assert "Traceback" not in outcome.err
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [row["uri"] for row in rows] == [file_uri(str(photo)) for photo in photos[:2]]
    assert all(set(row["probabilities"]) == set(TAGS) for row in rows)

    table = tagonce("predict", photos[0], "--model", jtp1_folder, "--threshold", "0.5", "--top", "3")
    assert table.code == 0, table.err
    shown = [line.split() for line in table.out.splitlines()[2:]]
    ranked = sorted(rows[0]["probabilities"].items(), key=lambda pair: -pair[1])
    assert shown == [[name, f"{probability:.4f}"] for name, probability in ranked[:3] if probability >= 0.5]


def test_models_lists_what_is_known(tagonce: Callable[..., Outcome], tmp_path: Path) -> None:
    """Without a database too, and without making one."""
    told = tagonce("models", "--json")
    assert told.code == 0, told.err
    assert {"jtp-1", "jtp-2", "demo"} <= set(told.json["known"])
    assert told.json["stored"] == []
    assert not list(tmp_path.iterdir())


def test_models_lists_what_is_stored(tagonce: Callable[..., Outcome], stored: Path, jtp2_folder: Path) -> None:
    listed = tagonce("models")
    assert listed.code == 0, listed.err
    assert "demo" in listed.out
    (row,) = tagonce("models", "--json").json["stored"]
    assert (row["id"], row["name"], row["floor"]) == (1, jtp2_folder.name, 0.05)
    assert row["weights_sha256"][:8] in listed.out


def files_in(folder: Path) -> dict[str, bytes]:
    """By name, without the records, which say when they were made."""
    found = {os.fspath(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {name for name in found if name.endswith("export.json")} == {"tagonce-export.json", "all.jsonl.export.json"}
    return {name: content for name, content in found.items() if not name.endswith("export.json")}
