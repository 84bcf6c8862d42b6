"""Every image of the installed packages, odd files, bombs and hundreds of broken ones, under mad names."""

import json
import os
import sysconfig
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sqlalchemy import select

from db.database import Database
from db.names.uris import file_uri
from db.schema import failures, images
from producer.sources.extensions import is_image
from producer.storage.s3_client import s3_client
from tests.e2e.ledger import Ledger
from tests.fixtures import hostile
from tests.fixtures.command import Outcome
from tests.fixtures.examples import up_to

BROKEN = up_to(1_000)
NAMES = [
    b"new\nline.jpg", b"quo\"te's.jpg", b"tab\tand\rreturn.jpg", b"caf\xe9 \xff\xfe.jpg", "日本語 🐈‍⬛.jpg".encode(),
    "\u202egpj.moc".encode() + b".jpg", b"100%41#?&;$(id)`id`.jpg", b"-rf.jpg", b"--help.jpg", b" two  spaces .jpg",
    b"a\\b*[x].jpg", b"=1+1.jpg", b"<b>&amp;.jpg", b"file:..jpg", b"\x1b[31mred.jpg", b"n" * 251 + b".jpg",
]  # fmt: skip
"""Of files: 255 bytes at most, and any of them but / and NUL."""
KEYS = [name.decode() for name in NAMES if b"\n" not in name and b"\xff" not in name] + ["k" * 1020 + ".jpg"]
"""Of objects: UTF-8 of 1,024 bytes. (Nor does the storage of the tests take a line break.)"""
MADE = {"names", "list.jsonl", "all.jsonl", "all.jsonl.export.json", "all.csv", "all.csv.export.json", "captions"}


def installed_images() -> list[Path]:
    """Test fixtures, icons and photographs of whatever the tests need."""
    packages = Path(sysconfig.get_path("purelib"))
    return sorted(path for path in packages.rglob("*.*") if is_image(path.name) and path.is_file())


def failed_with_details(url: str) -> list[tuple[str, str, str]]:
    """Uri, reason and detail of every failure."""
    database = Database(url)
    query = select(images.c.uri, failures.c.reason, failures.c.detail).join(
        failures, failures.c.image_id == images.c.id
    )
    with closing(database), database.read() as connection:
        return [tuple(row) for row in connection.execute(query)]


def make_corpus(folder: Path) -> int:
    """How many images it holds."""
    folder.mkdir()
    files = hostile.whole() | hostile.claims() | dict(hostile.broken(BROKEN, seed=5))
    files |= {f"{position}-of-a-kind.jpg": data for position, data in enumerate(hostile.unsupported().values())}
    files |= {"empty.jpg": b"", "one.png": b"\x89"}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    photo = hostile.saved(hostile.picture(), "jpeg")
    for position, name in enumerate(NAMES):
        (folder / os.fsdecode(name)).write_bytes(photo + bytes(position))  # the same bytes would be read once
    (folder / "folder.jpg").mkdir()
    (folder / "folder.jpg" / "inside.jpg").write_bytes(photo + b"inside")
    (folder / "nowhere.jpg").symlink_to("gone.jpg")
    (folder / "itself.jpg").symlink_to("itself.jpg")
    (folder / "round").symlink_to(folder)
    (folder / "installed.txt").write_text("\n".join(map(str, installed_images())))
    return len(files) + len(NAMES) + 1


def test_every_file_is_accounted_for(
    tagonce: Callable[..., Outcome],
    invoke: Callable[..., Outcome],
    jtp2_folder: Path,
    sqlite_url: str,
    tmp_path: Path,
) -> None:
    """Each once, none by the death or the hanging of a worker; of what is broken one line says why."""
    made = make_corpus(tmp_path / "corpus")
    installed = len(installed_images())
    assert installed > 50
    to = ("--database", sqlite_url)
    done = tagonce("tag", "corpus", "corpus/installed.txt", "--model", jtp2_folder, "--floor", "0", *to, seconds=200)
    assert done.code == 0, done.err
    rows = Ledger(sqlite_url)
    finished = rows.finished()
    assert len(finished) == len(set(finished)) == made + installed
    assert sorted(rows.uris()) == finished

    failed = failed_with_details(sqlite_url)
    reasons = Counter(reason for _uri, reason, _detail in failed)
    assert reasons.keys() == {"corrupt", "unsupported", "too_large"}, reasons
    assert min(reasons.values()) > 10
    assert sum(uri.endswith("-of-a-kind.jpg") for uri, reason, _detail in failed if reason == "unsupported") == len(
        hostile.unsupported()
    )
    for uri, _reason, detail in failed:
        assert detail, uri
        assert detail.isprintable(), (uri, detail)

    predicted = set(rows.predicted())
    assert {file_uri(str(tmp_path / "corpus" / name)) for name in hostile.whole()} <= predicted
    names = {file_uri(str(tmp_path / "corpus" / os.fsdecode(name))) for name in NAMES}
    assert names <= predicted
    assert file_uri(str(tmp_path / "corpus" / "folder.jpg" / "inside.jpg")) in predicted

    found = invoke("search", "solo:0", "--json", *to)
    assert found.code == 0, found.err
    assert {json.loads(line)["uri"] for line in found.out.splitlines()} == predicted


def test_mad_names_go_all_the_way(
    tagonce: Callable[..., Outcome],
    invoke: Callable[..., Outcome],
    jtp2_folder: Path,
    postgres_url: str,
    bucket: str,
    tmp_path: Path,
) -> None:
    """From a folder, a bucket and a list through PostgreSQL into searches, captions and lines of JSON."""
    photo = hostile.saved(hostile.picture(), "jpeg")
    client, folder = s3_client(), tmp_path / "names"
    folder.mkdir()
    for position, name in enumerate(NAMES):
        (folder / os.fsdecode(name)).write_bytes(photo + bytes(position))
    for position, key in enumerate(KEYS):
        client.put_object(Bucket=bucket, Key=key, Body=photo + b"s3" * position)
    paths = [folder / os.fsdecode(name) for name in NAMES]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(str(path)) + "\n" for path in paths))
    expected = {file_uri(str(path)) for path in paths} | {f"s3://{bucket}/{key}" for key in KEYS}
    to = ("--database", postgres_url)

    sources = ("names", f"s3://{bucket}", "list.jsonl")
    done = tagonce("tag", *sources, "--model", jtp2_folder, "--floor", "0", *to)
    assert done.code == 0, done.err
    rows = Ledger(postgres_url)
    assert rows.failed() == {}
    assert set(rows.predicted()) == expected
    assert rows.finished() == sorted(expected)

    assert invoke("status", *to).code == 0
    found = invoke("search", "solo:0", "--json", *to)
    assert {json.loads(line)["uri"] for line in found.out.splitlines()} == expected
    for format_, out in (("jsonl", "all.jsonl"), ("csv", "all.csv"), ("txt", "captions")):
        exported = invoke("export", "--threshold", "0", "--format", format_, "--out", out, *to)
        assert exported.code == 0, exported.err
    assert "1 refused: their names lead out of the folder, or are too long" in exported.err
    assert len(list((tmp_path / "captions").rglob("*.txt"))) == len(expected) - 1
    lines = (tmp_path / "all.jsonl").read_text().splitlines()
    assert {json.loads(line)["uri"] for line in lines} == expected
    outside = set(tmp_path.iterdir()) - {tmp_path / name for name in MADE}
    assert not outside
