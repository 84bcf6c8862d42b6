"""`tagonce doctor` on real services, in order and with faults."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import PIL
import pytest
from sqlalchemy import text

from db.database import Database, open_database
from db.errors import SourceError
from db.ledger import models
from producer.queue import broker, chunks
from producer.storage.s3_client import s3_client
from tagonce import from_settings, settings
from tagonce.doctor import clock, databases, finding, machine
from tagonce.doctor.finding import Check, Finding, Status
from tagonce.local.embedded_redis import find_server
from tests.fixtures.command import Outcome
from tests.fixtures.databases.restored import HEAD, restore
from tests.fixtures.photos import MAKER
from tests.fixtures.servers import RedisServer

PASSWORD = "s3cr%40t-of-ours"  # noqa: S105
MEANT = "s3cr@t-of-ours"

Doctor = Callable[..., list[dict[str, str]]]


def told(found: list[dict[str, str]], check: str, *statuses: str) -> str:
    """Messages and advice of a check, of findings with these statuses."""
    return "\n".join(
        f"{one['message']} | {one['advice']}" for one in found if one["check"] == check and one["status"] in statuses
    )


def wrong(found: list[dict[str, str]]) -> set[str]:
    return {one["check"] for one in found if one["status"] in {"warning", "failed"}}


@pytest.fixture
def tagged(database_url: str, jtp2_folder: Path, bucket: str) -> str:
    """The URL of a database with the model of `jtp2_folder` and an existing object in `bucket`."""
    client = s3_client()
    client.put_object(Bucket=bucket, Key="cats/1.png", Body=b"x")
    client.close()
    config = settings.load(database_url=database_url, model=str(jtp2_folder))
    with from_settings.stored(config, create=True) as opened:
        from_settings.find_and_register(opened, config)
        register(opened, f"s3://{bucket}/cats/1.png")
    return database_url


def register(opened: Database, uri: str) -> list[int]:
    from db.ledger import images
    from db.ledger.images import Reference

    with opened.write() as connection:
        return images.register(connection, [Reference(uri, "1", 1)], models.latest(connection).id)


def test_nothing_is_wrong_where_nothing_is_wrong(
    tagged: str,
    bucket: str,
    jtp2_folder: Path,
    redis_server: RedisServer,
    doctor: Doctor,
    invoke: Callable[..., Outcome],
) -> None:
    arguments = ("--database", tagged, "--broker", redis_server.url, "--model", jtp2_folder)
    found = doctor(*arguments, TAGONCE_ROOTS=f"s3://{bucket}/cats")
    assert wrong(found) == set()
    expected = {
        "settings",
        "database",
        "broker",
        "queue",
        "clock",
        "roots",
        "storage",
        "model",
        "device",
        "disk",
        "images",
        "profiles",
        "rows",
    }
    assert {one["check"] for one in found} == expected
    assert f"schema {HEAD}, up to date" in told(found, "database", "ok")
    assert f"{find_server().name}, a round trip" in told(found, "broker", "ok")
    assert "registered as tiny-jtp2 (id 1" in told(found, "model", "ok")
    assert f"s3://{bucket}/cats/1.png can be read" in told(found, "storage", "ok")
    for_people = invoke("doctor", "--device", "cpu", *arguments)
    assert for_people.code == 0
    assert for_people.out.startswith("ok       settings   1 given")
    assert "0 failed, 0 warning" in for_people.err


def test_a_server_that_is_away_is_one_line_without_its_password(doctor: Doctor, jtp2_folder: Path) -> None:
    """The other checks still run."""
    found = doctor(
        *("--database", f"postgresql://us:{PASSWORD}@127.0.0.1:1/tags"),
        *("--broker", f"redis://:{PASSWORD}@127.0.0.1:1/0", "--model", jtp2_folder),
    )
    assert wrong(found) == {"database", "broker", "queue"}
    assert "does not answer" in told(found, "database", "failed")
    assert "Redis at redis://:**@127.0.0.1:1/0" in told(found, "broker", "failed")
    assert PASSWORD not in str(found)
    assert MEANT not in str(found)


def test_a_schema_of_another_version(new_database_url: str, tmp_path: Path, doctor: Doctor) -> None:
    restore("0001", new_database_url, tmp_path)
    older = doctor("--database", new_database_url, "--model", "demo")
    assert f"its schema 0001 is older than this program's, {HEAD} | Stop all workers" in told(
        older, "database", "warning"
    )
    opened = Database(new_database_url)
    with opened.write() as connection:
        assert connection.scalar(text("select version_num from alembic_version")) == "0001"
        connection.execute(text("update alembic_version set version_num = '9999'"))
    opened.close()
    newer = doctor("--database", new_database_url, "--model", "demo")
    assert f"schema 9999 is of a newer tagonce; this one knows up to {HEAD} | Upgrade" in told(
        newer, "database", "failed"
    )


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_database_that_may_only_be_read(tagged: str, doctor: Doctor) -> None:
    """Found by the default of its sessions: commands use read-only transactions on any database."""
    only_read = "options=-c%20default_transaction_read_only%3Don"
    found = doctor("--database", f"{tagged}{'&' if '?' in tagged else '?'}{only_read}", "--model", "demo")
    assert "it is read-only (a standby?) | Point TAGONCE_DATABASE_URL at" in told(found, "database", "failed")


def test_a_pillow_that_resizes_otherwise_is_said(
    tagged: str, jtp2_folder: Path, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row of the model has the version of Pillow with which its first scores were computed."""
    options = ("--database", tagged, "--model", jtp2_folder)
    here = PIL.__version__
    assert "registered as tiny-jtp2" in told(doctor(*options), "model", "ok")
    other = "13.0.0" if here < "13" else "12.3.0"
    monkeypatch.setattr(machine, "version", lambda _name: other)
    assert f"are by Pillow {here}, and {other} is installed" in told(doctor(*options), "model", "warning")


def test_a_database_that_is_not_there_yet_is_not_made(sqlite_url: str, tmp_path: Path, doctor: Doctor) -> None:
    found = doctor("--database", sqlite_url, "--model", "demo")
    assert wrong(found) == set()
    assert "does not exist yet" in told(found, "database", "ok")
    assert not (tmp_path / "tags.db").exists()
    nowhere = doctor("--database", f"sqlite:///{tmp_path}/nowhere/tags.db", "--model", "demo")
    assert "there is no folder" in told(nowhere, "database", "failed")


def test_variables_that_mean_nothing(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TAGONCE_DATABSE_URL=sqlite:///x.db\nTAGONCE_MODEL=demo\nOTHER=1\n")
    found = doctor(TAGONCE_FLOR="0.2", tagonce_chunk_size="64")
    warnings = told(found, "settings", "warning")
    assert "TAGONCE_FLOR is not a setting of tagonce, and has no effect | Did you mean TAGONCE_FLOOR?" in warnings
    assert "TAGONCE_DATABSE_URL" in warnings
    assert len(warnings.splitlines()) == 2
    assert f"2 given, by the environment and {tmp_path / '.env'}" in told(found, "settings", "ok")


def test_an_env_file_that_is_half_read(doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelled name of tagonce or of boto3, a line without a value, and a value that the environment overrides."""
    lines = (
        "TAGONE_MODEL=demo\nAWS_ENDPOINT_URL_S4=http://x\nAWS_REGION=eu-west-1\nAWS_PROFILE=p\nPOSTGRES_PASSWORD=x\n"
        "\nTAGONCE_DEVICE cpu\nHF_HUB_CACHE=/x\n"
    )
    (tmp_path / ".env").write_text(lines)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    for name in ("AWS_PROFILE", "HF_HUB_CACHE", "AWS_ENDPOINT_URL_S4"):
        monkeypatch.setenv(name, "restored after the test")
        monkeypatch.delenv(name)
    found = doctor()
    warnings = told(found, "settings", "warning")
    assert "nothing reads TAGONE_MODEL of .env | Did you mean TAGONCE_MODEL?" in warnings
    assert "nothing reads AWS_ENDPOINT_URL_S4 of .env | Did you mean AWS_ENDPOINT_URL_S3?" in warnings
    assert "AWS_REGION of .env is not used: the environment has another value" in warnings
    assert "line 7 of .env is ignored: it is not NAME=value" in warnings
    assert len(warnings.splitlines()) == 4
    assert "ignored, for other programs: POSTGRES_PASSWORD" in told(found, "settings", "ok")


def test_files_and_objects_that_are_gone(tagged: str, bucket: str, tmp_path: Path, doctor: Doctor) -> None:
    opened = Database(tagged)
    for number in range(6):
        path = tmp_path / f"{number}.jpg"
        if number < 4:
            path.write_bytes(b"x")
        register(opened, path.as_uri())
    register(opened, f"s3://{bucket}/gone.png")
    opened.close()
    warnings = told(doctor("--database", tagged, "--model", "demo"), "images", "warning")
    assert "2 of 6 files of a sample do not exist: " in warnings
    assert f"1 of 2 objects of a sample do not exist: s3://{bucket}/gone.png" in warnings


def test_a_floor_above_a_saved_profile(tagged: str, doctor: Doctor, invoke: Callable[..., Outcome]) -> None:
    for name, threshold in (("low", "0.5"), ("low", "0.02"), ("high", "0.5")):
        assert invoke("thresholds", "save", "--name", name, "-t", threshold, "--database", tagged).code == 0
    arguments = ("--database", tagged, "--model", "demo")
    assert "2 saved, none below the floor of 0.01" in told(doctor(*arguments), "profiles", "ok")
    warnings = told(doctor(*arguments, TAGONCE_FLOOR="0.05"), "profiles", "warning")
    assert warnings.startswith("low@2 has a threshold of 0.02, and TAGONCE_FLOOR is 0.05")
    assert len(warnings.splitlines()) == 1


def test_the_lock_that_a_killed_worker_left(
    migrated_sqlite_url: str, redis_server: RedisServer, doctor: Doctor
) -> None:
    """Kombu's own lock, under kombu's name. Without held chunks it is not reported."""
    open_database(migrated_sqlite_url).close()
    arguments = ("--database", migrated_sqlite_url, "--broker", redis_server.url, "--model", "demo")
    app = broker.create_app(redis_server.url, 1)
    with (
        app.connection_or_acquire() as connection,
        connection.channel() as channel,
        channel.conn_or_acquire() as client,
    ):
        client.lock(channel.unacked_mutex_key, timeout=300).acquire()
        assert "lock" not in told(doctor(*arguments), "queue", "warning")
        client.hset(channel.unacked_key, "tag", "a chunk")
    warnings = told(doctor(*arguments), "queue", "warning")
    assert "1 chunk is held by workers, and the lock" in warnings
    assert "is taken for another 29" in warnings or "another 300 s" in warnings


def test_settings_that_are_wrong_are_all_there_is_to_say(doctor: Doctor) -> None:
    found = doctor(TAGONCE_FLOOR="7")
    assert [one["check"] for one in found] == ["settings"]
    assert "TAGONCE_FLOOR" in told(found, "settings", "failed")


def test_a_redis_that_may_lose_the_queue(redis_server: RedisServer, doctor: Doctor) -> None:
    with redis_server.client as client:
        client.config_set("appendonly", "no")
        for number in range(20):
            client.set(f"filler {number}", "x" * 1_000_000)
        client.config_set("maxmemory", int(1.1 * client.info("memory")["used_memory"]))
        client.config_set("maxmemory-policy", "allkeys-lru")
    warnings = told(doctor("--broker", redis_server.url, "--model", "demo"), "broker", "warning")
    assert "maxmemory-policy is allkeys-lru" in warnings
    assert "Set maxmemory-policy noeviction." in warnings
    assert "appendonly is no" in warnings
    assert "MB of memory in use | Raise maxmemory" in warnings


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_chunks_that_nobody_works_on(tagged: str, redis_server: RedisServer, doctor: Doctor) -> None:
    with chunks.sending(broker.create_app(redis_server.url, 1), 1, max_waiting=10) as sender:
        sender.send([1])
    found = doctor("--database", tagged, "--broker", redis_server.url, "--model", "demo")
    assert "1 chunk waiting | Start a worker" in told(found, "queue", "warning")


def test_sources_that_cannot_be_read(
    bucket: str, tmp_path: Path, make_photos: MAKER, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_photos(1)
    found = doctor("photos", "nowhere", f"s3://{bucket}-not/", "-", "--model", "demo")
    assert [one["status"] for one in found if one["check"] == "storage"] == ["ok", "ok", "failed", "failed", "failed"]
    failed = told(found, "storage", "failed")
    assert "there is no file or folder" in failed
    assert f"there is no bucket '{bucket}-not'" in failed
    monkeypatch.setenv("TAGONCE_ROOTS", f"{tmp_path}/other,s3://{bucket}/none/")
    outside = doctor("photos", "--model", "demo")
    assert "outside of TAGONCE_ROOTS" in told(outside, "storage", "failed")
    assert len(told(outside, "roots", "warning").splitlines()) == 2


def test_a_bucket_that_denies(sqlite_url: str, forbidding: None, doctor: Doctor) -> None:
    """The database has an object of the bucket, and a file that was deleted since, which is only a warning."""
    config = settings.load(database_url=sqlite_url, model="demo")
    with from_settings.stored(config, create=True) as opened:
        from_settings.find_and_register(opened, config)
        for uri in ("s3://shut/a.png", "s3://shut/b.png", "file:///gone/1.png"):
            register(opened, uri)
    found = doctor("--database", sqlite_url, "--model", "demo")
    failed = told(found, "storage", "failed").splitlines()
    assert len(failed) == 2
    assert all("S3 denies access to bucket 'shut'" in line for line in failed)
    assert "/gone/1.png does not exist" in told(found, "storage", "warning")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_model_that_is_not_here_or_not_the_one_that_is_stored(
    tagged: str, jtp2_folder: Path, timm_folder: Path, doctor: Doctor
) -> None:
    def look(*arguments: str | Path, status: str, **environment: str) -> str:
        return told(doctor("--database", tagged, *arguments, **environment), "model", status)

    assert "There is no model './nowhere'" in look("--model", "./nowhere", status="failed")
    assert "not downloaded yet" in look("--model", "hf-hub:nobody/nothing", status="warning")
    assert "tiny-timm is not registered yet" in look("--model", timm_folder, status="ok")
    changed = look("--model", jtp2_folder, status="warning", TAGONCE_FLOOR="0.05", TAGONCE_DCT_SCALING="true")
    assert "but here the floor is 0.05 and dct_scaling differ" in changed
    assert "tag everything again" in changed


def test_a_device_that_is_not_here(doctor: Doctor) -> None:
    found = doctor("--device", "cuda:99", "--model", "demo")
    assert "'cuda:99' (TAGONCE_DEVICE, --device) cannot be used here" in told(found, "device", "failed")


def test_disks_that_are_nearly_full(migrated_sqlite_url: str, doctor: Doctor) -> None:
    open_database(migrated_sqlite_url).close()
    found = doctor("--database", migrated_sqlite_url, "--model", "demo", "--min-free", "1e9")
    assert wrong(found) == {"database", "disk"}
    assert len(told(found, "disk", "warning").splitlines()) == 2


@pytest.mark.parametrize(
    ("skew", "status"), [(0.3, Status.OK), (-0.3, Status.OK), (-5.0, Status.WARNING), (50.0, Status.FAILED)]
)
def test_a_clock_that_is_wrong(skew: float, status: Status) -> None:
    found = clock.finding(skew, "Redis", 120)
    assert found.status is status
    assert f"differ by {abs(skew):.2f} s" in found.message


def test_the_file_system_of_a_folder_is_found() -> None:
    assert databases.file_system(Path("/proc/self")) == "proc"


def test_a_check_that_breaks_or_hangs_is_one_line_and_stops_no_other() -> None:
    def breaks() -> Iterator[Finding]:
        yield Finding("breaks", Status.OK, "first")
        raise RuntimeError(f"a library prints redis://:{MEANT}@host")

    def fails() -> Iterator[Finding]:
        raise SourceError(f"no bucket {PASSWORD}")
        yield

    def hangs() -> Iterator[Finding]:
        time.sleep(60)
        yield Finding("hangs", Status.OK, "too late")

    works = [Finding("works", Status.OK, "here")]
    checks = [
        Check("breaks", breaks, 5),
        Check("fails", fails, 5),
        Check("hangs", hangs, 0.1, "a host"),
        Check("works", lambda: works, 5),
    ]
    found = list(finding.run(checks, {PASSWORD, MEANT, ""}))
    assert [(one.check, one.status) for one in found] == [
        ("breaks", Status.OK),
        ("breaks", Status.FAILED),
        ("fails", Status.FAILED),
        ("hangs", Status.FAILED),
        ("works", Status.OK),
    ]
    assert found[1].message == "RuntimeError: a library prints redis://:***@host"
    assert found[2].message == "no bucket ***"
    assert "no answer within 0.1 s from a host" in found[3].message
