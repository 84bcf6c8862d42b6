"""Everything behind TLS, with passwords, and with no more rights than docs/security.md gives."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import redis
import yaml

from tests.e2e.forked import Workers
from tests.e2e.ledger import Ledger
from tests.fixtures.checkpoints import TAGS
from tests.fixtures.command import Outcome, wait_until
from tests.fixtures.servers import RedisServer
from tests.fixtures.tls import HOST, Certificates, tls_before

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
SECRETS = ROOT / "deploy" / "kubernetes" / "secrets.example.yaml"
SECRET = "p@ss:w/rd-of-tests"  # noqa: S105 - of servers that live as long as a test
ROLES = ("tagonce_owner", "tagonce_worker", "tagonce_reader")
PHOTOS = 12


def block(language: str) -> str:
    """The only code block of the page in this language, with our password."""
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return str(text).replace("PASSWORD", SECRET)


def of_the_manifest() -> str:
    """What Valkey in Kubernetes has beside the users of the page: one for its health check."""
    secrets = yaml.safe_load_all(SECRETS.read_text(encoding="utf-8"))
    (users,) = [secret["stringData"]["users.acl"] for secret in secrets if "users.acl" in secret["stringData"]]
    return str(users)


def admin(server: RedisServer) -> redis.Redis:
    return redis.Redis(port=server.port, username="admin", password=SECRET)


def assert_tells_no(secret: str, text: str) -> None:
    assert secret not in text
    assert quote(secret, safe="") not in text


@pytest.fixture
def guarded_redis(redis_server: RedisServer) -> RedisServer:
    """With the users of the page, and one for the test."""
    with redis_server.client as client:
        client.execute_command("ACL", "SETUSER", "admin", "on", f">{SECRET}", "~*", "&*", "+@all")
    with admin(redis_server) as client:
        for line in (block("acl") + of_the_manifest()).splitlines():
            _user, name, *rules = line.split()
            client.execute_command("ACL", "SETUSER", name, *rules)
    return redis_server


@pytest.fixture
def guarded_postgres(postgres: str, postgres_url: str) -> Iterator[str]:
    """With the roles of the page, which need their password. Gives the unix socket."""
    folder = Path(postgres.partition("host=")[2])
    rules = folder / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"local all {','.join(ROLES)} scram-sha-256\n{before}")
    with psycopg.connect(postgres_url, autocommit=True) as superuser:
        superuser.execute(block("sql").encode())
        superuser.execute("select pg_reload_conf()")
        yield f"{folder}/.s.PGSQL.5432"
        for role in ROLES:
            superuser.execute(f"drop owned by {role}".encode())
            superuser.execute(f"drop role {role}".encode())
        rules.write_text(before)
        superuser.execute("select pg_reload_conf()")


@pytest.fixture
def urls(
    guarded_redis: RedisServer, guarded_postgres: str, postgres_url: str, certificates: Certificates
) -> Iterator[dict[str, str]]:
    """Over TLS: by role of PostgreSQL, and `redis`."""
    name = postgres_url.partition("@/")[2].partition("?")[0]
    with ExitStack() as stack:
        broker = stack.enter_context(tls_before(guarded_redis.port, certificates.server))
        database = stack.enter_context(tls_before(guarded_postgres, certificates.server, asked_for=True))
        password = quote(SECRET, safe="")
        yield {
            role: f"postgresql://{role}:{password}@{HOST}:{database}/{name}"
            f"?sslmode=verify-full&sslrootcert={certificates.authority}"
            for role in ROLES
        } | {"redis": f"rediss://tagonce:{password}@{HOST}:{broker}/0?ssl_ca_certs={certificates.authority}"}


def healthy(settings: dict[str, str]) -> bool:
    """What the health check of the image says, asked of the workers on this machine."""
    command = [sys.executable, "-P", ROOT / "deploy" / "healthcheck.py"]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, timeout=60, check=False)
    assert done.stderr == b""
    return done.returncode == 0


def test_the_rights_of_the_page_are_enough_and_no_log_tells_a_password(
    urls: dict[str, str],
    invoke: Callable[..., Outcome],
    workers: Workers,
    make_photos: Callable[..., list[Path]],
    jtp2_folder: Path,
    guarded_redis: RedisServer,
) -> None:
    """The owner makes the tables; a worker is killed, its chunk comes back to another one; a reader reads.

    Two workers tell all they can, as JSON and as text.
    """
    told = [invoke("migrate", "--database", urls["tagonce_owner"])]
    photos = make_photos(PHOTOS)
    settings = {
        "TAGONCE_BROKER_URL": urls["redis"],
        "TAGONCE_DATABASE_URL": urls["tagonce_worker"],
        "TAGONCE_MODEL": str(jtp2_folder),
        "TAGONCE_LEASE_SECONDS": "3",
        "TAGONCE_LOG_LEVEL": "DEBUG",
    }
    killed = workers.start(decode_seconds=0.3, TAGONCE_LOG_FORMAT="json", **settings)
    killed.wait_until_ready()
    told += [
        invoke("enqueue", str(photos[0].parent), "--chunk-size", "6", **settings | {"TAGONCE_MODEL": jtp2_folder.name})
    ]
    rows = Ledger(urls["tagonce_reader"])
    wait_until(lambda: rows.deliveries() > 0)
    killed.signal(signal.SIGKILL)
    killed.wait()
    other = workers.start(**settings)
    wait_until(lambda: rows.count() == PHOTOS)
    assert healthy(settings)
    other.signal(signal.SIGTERM)
    assert other.wait() == 0, other.words()

    reader = ("--database", urls["tagonce_reader"])
    told += [
        invoke("status", "--json", "--broker", urls["redis"], *reader),
        invoke("search", TAGS[0], *reader),
        invoke("counts", *reader),
        invoke("export", "--format", "jsonl", "--out", "tags.jsonl", *reader),
        invoke("index", "--database", urls["tagonce_owner"]),
        invoke("retry", "--database", urls["tagonce_worker"], "--broker", urls["redis"]),
    ]
    for outcome in told:
        assert outcome.code == 0, outcome.err
    assert told[2].json["queue"]["waiting"] == 0

    assert '"debug"' in killed.words()
    for text in (killed.words(), other.words(), *(outcome.out + outcome.err for outcome in told)):
        assert_tells_no(SECRET, text)
    with admin(guarded_redis) as client:
        assert client.acl_log() == []
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] > 0


def test_a_reader_changes_nothing_and_a_worker_makes_no_tables(
    urls: dict[str, str], invoke: Callable[..., Outcome], jtp2_folder: Path
) -> None:
    first = invoke("migrate", "--database", urls["tagonce_worker"])
    assert (first.code, "may not do that: permission denied for schema public" in first.err) == (1, True)
    assert "docs/security.md" in first.err
    assert invoke("migrate", "--database", urls["tagonce_owner"]).code == 0
    assert invoke("migrate", "--database", urls["tagonce_worker"]).code == 0
    with psycopg.connect(urls["tagonce_reader"]) as reader:
        assert reader.execute("select count(*) from images").fetchone() == (0,)
    for statement in ("delete from images", "update alembic_version set version_num = 'x'", "create table x (y int)"):
        with psycopg.connect(urls["tagonce_reader"]) as reader, pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute(statement.encode())


COUNT = "return redis.call(redis.call('type', KEYS[1]).ok == 'hash' and 'hlen' or 'llen', KEYS[1])"
"""KEDA counts by a script that looks at the type first (pkg/scalers/redis_scaler.go of kedacore/keda, since 2.0)."""


def test_who_counts_and_who_asks_for_health_may_do_nothing_else(guarded_redis: RedisServer) -> None:
    with admin(guarded_redis) as client:
        client.lpush("tagonce:tag.1", "a", "b")
        client.hset("tagonce:unacked", "c", "d")
    with redis.Redis(port=guarded_redis.port, username="keda", password=SECRET) as keda:
        assert [keda.eval(COUNT, 1, f"tagonce:{key}") for key in ("tag.1", "tag.2", "unacked")] == [2, 0, 1]
        for refused in (
            ["lrange", "tagonce:tag.1", 0, -1],
            ["eval", COUNT, 1, "other"],
            ["flushall"],
            ["rpop", "tagonce:tag.1"],
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                keda.execute_command(*refused)
    with redis.Redis(port=guarded_redis.port, username="health", password="none") as health:  # noqa: S106
        assert health.ping()
        with pytest.raises(redis.exceptions.NoPermissionError):
            health.llen("tagonce:tag.1")


def test_wrong_passwords_are_said_and_not_shown(
    urls: dict[str, str],
    invoke: Callable[..., Outcome],
    workers: Workers,
    make_photos: Callable[..., list[Path]],
    jtp2_folder: Path,
) -> None:
    """By every command that needs one of the two; a worker ends with a sentence, and not with a traceback."""
    wrong = "wr@ng:one"
    right, mistaken = quote(SECRET, safe=""), quote(wrong, safe="")
    database, broker = urls["tagonce_owner"], urls["redis"]
    photos = str(make_photos(1)[0].parent)
    model = ("--model", str(jtp2_folder))
    no_database = {"TAGONCE_DATABASE_URL": database.replace(right, mistaken), "TAGONCE_BROKER_URL": broker}
    no_broker = {"TAGONCE_DATABASE_URL": database, "TAGONCE_BROKER_URL": broker.replace(right, mistaken)}

    said = [invoke(*words, **no_database) for words in (("status",), ("enqueue", photos), ("export",), ("migrate",))]
    assert [outcome.code for outcome in said] == [1, 1, 1, 1]
    for outcome in said:
        assert "Check user and password in TAGONCE_DATABASE_URL" in outcome.err

    lonely = [workers.start(*model, **no_database), workers.start(*model, **no_broker)]
    assert [worker.wait() for worker in lonely] == [1, 1]
    assert "Check user and password in TAGONCE_DATABASE_URL" in lonely[0].words()
    assert "Check user and password in TAGONCE_BROKER_URL" in lonely[1].words()

    named = ("--model", jtp2_folder.name)
    said += [invoke("doctor", *named, **settings) for settings in (no_database, no_broker)]
    said += [invoke("enqueue", photos, *named, **no_broker), invoke("status", **no_broker)]
    assert "Check user and password in TAGONCE_BROKER_URL" in said[-2].err
    assert (said[-1].code, "rejects the login" in said[-1].out) == (0, True)
    for text in (*(worker.words() for worker in lonely), *(outcome.out + outcome.err for outcome in said)):
        assert "Traceback" not in text
        for secret in (SECRET, wrong):
            assert_tells_no(secret, text)
