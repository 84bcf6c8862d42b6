"""README, "Ten million images in S3" and the four commands: as printed, in a clean environment."""

import json
import os
import re
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from producer.storage.s3_client import s3_client
from tests.fixtures.command import Outcome, Process, wait_until

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Ten million images in S3")[2].partition("## Operations")[0]
ENV, WORKER, ANYWHERE = re.findall(r"^```\n(.*?)^```", SECTION, flags=re.DOTALL | re.MULTILINE)
FOUR = README.partition("Four commands")[2].partition("```\n")[2].partition("```")[0]


def with_values(text: str, values: dict[str, str]) -> str:
    """The same file with other values. Names, their order and the comments behind them stay."""
    for name, value in values.items():
        text, found = re.subn(rf"(?m)^{name}=\S+", f"{name}={value}", text)
        assert found == 1, f"{name} is not in the .env of README"
    return text


def commands(block: str) -> list[list[str]]:
    """The lines that start tagonce, as a shell splits them."""
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    return [line[1:] for line in lines if line and line[0] == "tagonce"]


@pytest.fixture
def booru(
    s3_settings: None, s3_endpoint: str, make_photos: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The bucket of README, with six images and two names that are none; nothing of S3 is in the environment.

    The values for .env are returned.
    """
    client = s3_client()
    client.create_bucket(Bucket="booru")
    photos = make_photos(6)
    for number, photo in enumerate(photos):
        client.upload_file(str(photo), "booru", f"images/{2024 if number < 4 else 2023}/{photo.name}")
    client.put_object(Bucket="booru", Key="images/.cache/a.jpg", Body=b"x")
    client.put_object(Bucket="booru", Key="images/notes.md", Body=b"x")
    client.close()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return {
        "AWS_ENDPOINT_URL_S3": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "key-of-env",
        "AWS_SECRET_ACCESS_KEY": "secret-of-env",
    }


def test_the_env_file_and_the_commands_of_readme(
    tmp_path: Path,
    booru: dict[str, str],
    postgres_url: str,
    redis_url: str,
    jtp2_folder: Path,
    tagonce: Callable[..., Outcome],
    start_tagonce: Callable[..., Process],
) -> None:
    """All that is said of S3 comes from the file, to worker, producer and doctor alike."""
    values = {
        "TAGONCE_DATABASE_URL": postgres_url,
        "TAGONCE_BROKER_URL": redis_url,
        "TAGONCE_MODEL": str(jtp2_folder),
    } | booru
    (tmp_path / ".env").write_text(with_values(ENV, values))

    (with_all_devices,) = commands(WORKER)
    assert with_all_devices == ["worker", "--devices", "all"], "there is no GPU here: one process on the CPU instead"
    worker = start_tagonce("worker", "--device", "cpu")
    worker.wait_for("batches of", seconds=120)

    enqueue, status, retry, export = commands(ANYWHERE)
    sent = tagonce(*enqueue)
    assert sent.code == 0, sent.err
    assert "6 images seen, 6 sent" in sent.err
    assert "1 name passed over (no image extension: .md)" in sent.err
    assert "1 file in hidden or system folders left out" in sent.err
    wait_until(lambda: tagonce("status", "--json").json["done"] == 6, seconds=120, every=1)

    watching = start_tagonce(*status)
    watching.wait_for("images")
    watching.signal(signal.SIGINT)
    assert watching.wait() == 130
    assert tagonce(*retry).code == 0
    exported = tagonce(*export)
    assert exported.code == 0, exported.err
    lines = (tmp_path / "2024.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert all("s3://booru/images/2024/" in json.dumps(json.loads(line)) for line in lines)

    four_worker, four_enqueue, search, export_all = commands(FOUR)
    assert four_worker == with_all_devices
    assert tagonce(*four_enqueue).code == 0
    found = tagonce(*search)
    assert found.code == 0, found.err
    assert tagonce(*export_all).code == 0
    assert len((tmp_path / "captions.jsonl").read_text().splitlines()) == 6

    looked = tagonce("doctor", "s3://booru/images/", "--device", "cpu", "--json")
    storage = [one for one in looked.json if one["check"] == "storage"]
    assert {one["status"] for one in storage} == {"ok"}, storage
    assert "secret-of-env" not in looked.out
    log = worker.words()
    assert "Found credentials" not in log
    assert "superuser" not in log
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
