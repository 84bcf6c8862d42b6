"""Errors are sentences for people: the right exit code, what was wrong, what to do; never a traceback.

Exit code 1: something failed. 2: the command was not understood.
"""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from db.errors import EXIT_USAGE
from producer.storage.s3_client import s3_client
from tests.e2e.forked import Workers
from tests.e2e.ledger import Ledger
from tests.fixtures.command import Outcome, wait_until
from workers.queue.isolation import MAX_DELIVERIES

NOBODY = "127.0.0.1:1"
"""Nothing listens there."""


@pytest.fixture
def refused(tagonce: Callable[..., Outcome]) -> Callable[..., str]:
    """Run a command that has to fail with a code and say all of these words; returns what it said."""

    def run(code: int, words: tuple[str, ...], *arguments: str | Path, **environment: str) -> str:
        outcome = tagonce(*arguments, **environment)
        assert outcome.code == code, outcome.err
        assert outcome.out == ""
        assert "Traceback" not in outcome.err
        assert outcome.err.count("error:") == 1
        for word in words:
            assert word in outcome.err
        return outcome.err

    return run


def test_sources(refused: Callable[..., str], tmp_path: Path, jtp2_folder: Path, sqlite_url: str) -> None:
    """A folder that is not there, an empty one, and nothing to do at all. No database is left behind."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    options = ("--model", jtp2_folder, "--database", sqlite_url)
    refused(1, ("no file or folder", "gone"), "tag", "gone", *options)
    refused(2, ("sources, or --pending",), "enqueue", "--database", sqlite_url)
    refused(2, ("TAGONCE_BROKER_URL", "--broker"), "enqueue", "empty", "--database", sqlite_url)
    refused(2, ("TAGONCE_BROKER_URL",), "worker", *options)
    assert not (tmp_path / "tags.db").exists()
    refused(1, ("no image files in", "empty"), "tag", "empty", *options)


def test_servers_that_do_not_answer(
    tagonce: Callable[..., Outcome],
    refused: Callable[..., str],
    make_photos: Callable[..., list[Path]],
    stored: Path,
    jtp2_folder: Path,
) -> None:
    """Redis, PostgreSQL and S3: which one, where, and which setting to look at; passwords stay secret."""
    make_photos(1)
    redis = ("--broker", f"redis://:secret@{NOBODY}/0")
    database = f"postgresql://me:secret@{NOBODY}/tags"
    for arguments in (
        ("enqueue", "photos", "--model", jtp2_folder.name, *redis),
        ("worker", "--model", jtp2_folder, *redis),
    ):
        said = refused(1, ("Redis at", NOBODY, "TAGONCE_BROKER_URL"), *arguments)
        assert "secret" not in said
    assert "does not answer" in tagonce("status", *redis).out
    for arguments in (("tag", "photos", "--model", jtp2_folder), ("export",)):
        said = refused(1, ("The database", NOBODY, "TAGONCE_DATABASE_URL"), *arguments, "--database", database)
        assert "secret" not in said
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL_S3": f"http://{NOBODY}"}
    refused(1, ("S3 endpoint", "AWS_ENDPOINT_URL_S3"), "tag", "s3://bucket/x", "--model", jtp2_folder, **keys)


def test_a_bucket_that_does_not_exist(
    refused: Callable[..., str], s3_settings: None, stored: Path, jtp2_folder: Path
) -> None:
    refused(1, ("there is no bucket 'nowhere'",), "tag", "s3://nowhere/2024", "--model", jtp2_folder)


def test_thresholds_that_cannot_be_answered(refused: Callable[..., str], stored: Path) -> None:
    """Above 1, with a fifth decimal, and below the floor that was stored."""
    refused(2, ("between 0 and 1", "1.5"), "export", "--threshold", "1.5")
    refused(2, ("four decimals", "0.12345"), "export", "--threshold", "0.12345")
    refused(2, ("floor of 0.05", "0.02", "--floor"), "export", "--threshold", "0.02")


def test_settings_are_all_named_at_once(refused: Callable[..., str]) -> None:
    refused(2, ("TAGONCE_BATCH_SIZE", "TAGONCE_FLOOR", "not 7"), "status", TAGONCE_BATCH_SIZE="abc", TAGONCE_FLOOR="7")


def test_models_that_do_not_exist_or_do_not_fit(
    refused: Callable[..., str], make_photos: Callable[..., list[Path]], jtp2_folder: Path, tmp_path: Path
) -> None:
    """Both numbers when tags and weights belong to different models; what only the worker finds out is said once."""
    make_photos(1)
    refused(1, ("no model 'nix'", "demo"), "tag", "photos", "--model", "nix")

    short = tmp_path / "short"
    shutil.copytree(jtp2_folder, short)
    tags = json.loads((short / "tags.json").read_text())
    tags.popitem()
    (short / "tags.json").write_text(json.dumps(tags))
    rows = (str(len(tags)), str(2 * len(tags)), str(2 * len(tags) + 2))
    refused(1, (*rows, "belong to different models"), "tag", "photos", "--model", short)

    deep = tmp_path / "deep"
    shutil.copytree(jtp2_folder, deep)
    stated = json.loads((deep / "model.json").read_text())
    stated["model_args"]["depth"] += 1
    (deep / "model.json").write_text(json.dumps(stated))
    said = refused(1, ("The worker exited with code", str(deep)), "tag", "photos", "--model", deep)
    assert said.count("The weights belong to another architecture") == 1


def test_a_database_of_a_newer_version(refused: Callable[..., str], stored: Path) -> None:
    with closing(sqlite3.connect(stored)) as connection, connection:
        connection.execute("update alembic_version set version_num = '9999'")
    refused(1, ("newer",), "status")


def test_commands_that_do_not_exist(tagonce: Callable[..., Outcome]) -> None:
    for arguments in (("nix",), ("export", "--format", "xml"), ("tag",)):
        outcome = tagonce(*arguments)
        assert outcome.code == 2
        assert "Usage: tagonce" in outcome.err
        assert "Traceback" not in outcome.err


def test_no_database_and_nothing_to_retry(
    tagonce: Callable[..., Outcome], refused: Callable[..., str], stored: Path
) -> None:
    refused(1, ("does not exist", "tagonce tag"), "status", "--database", "sqlite:///gone.db")
    retried = tagonce("retry")
    assert (retried.code, retried.err) == (0, "0 failures cleared.\n")


def test_a_worker_without_credentials_stops_and_blames_no_image(
    tagonce: Callable[..., Outcome],
    workers: Workers,
    stored: Path,
    bucket: str,
    redis_url: str,
    jtp2_folder: Path,
    skimage_photos: Path,
) -> None:
    """However often its supervisor starts it again: the chunk goes back, and is done when the settings are right."""
    client = s3_client()
    client.put_object(Bucket=bucket, Key="cat.png", Body=(skimage_photos / "chelsea.png").read_bytes())
    client.close()
    rows = Ledger(f"sqlite:///{stored}")
    sent = tagonce("enqueue", f"s3://{bucket}/", "--model", jtp2_folder.name, TAGONCE_BROKER_URL=redis_url)
    assert "1 sent" in sent.err
    options = ("--model", jtp2_folder, "--floor", "0.05", "--broker", redis_url)
    for _ in range(MAX_DELIVERIES + 1):
        worker = workers.start(*options, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
        assert worker.wait() == EXIT_USAGE, worker.words()
        assert worker.words().count("error: there are no complete S3 credentials") == 1
    assert rows.count() == rows.deliveries() == 0
    workers.start(*options)
    wait_until(lambda: rows.count() == 1)
    assert rows.failed() == {}
