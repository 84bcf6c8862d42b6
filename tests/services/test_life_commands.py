"""`--gone`, `tagonce forget`, `tagonce failures`, and the forms of a place that commands accept, on both databases."""

import json
import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from db.database import Database, open_database
from db.errors import Reason, SettingsError, SourceError
from db.ledger import gone, models, results
from db.ledger.images import Reference, register
from db.ledger.results import Failure
from db.names.uris import file_uri
from db.schema import profile_thresholds
from producer import sources
from producer.sources.folder import in_folder
from producer.sources.name_filter import NameFilter
from tagonce.options.under_option import uri_prefix
from tagonce.output import ui
from tests.fixtures.command import Outcome
from tests.fixtures.photos import MAKER
from tests.fixtures.servers import RedisServer
from tests.services.conftest import make_model
from tests.services.test_judging import store

Run = Callable[..., Outcome]
PLACES = ("s3://b/a/1.jpg", "s3://b/a/2.jpg", "s3://b/b/3.jpg", "s3://b/b/4.jpg")
ROWS = [{1: 9000}, {1: 8000, 2: 7000}, {1: 7000}, {2: 6000}]


@pytest.fixture
def run(database_url: str, invoke: Run) -> Run:
    """Runs commands on a database of four images, the second one gone, and three failures. Asserts the exit code."""
    database = open_database(database_url)
    model = make_model(database)
    ids = store(database, model, list(PLACES), ROWS)
    with database.write() as connection:
        gone.mark(connection, ids[1:2])
        failed = [Reference(f"s3://b/c/{name}", "1", 1) for name in ("damaged.jpg", "away.jpg", "a\nb.jpg")]
        broken = register(connection, failed, model.id)
        reasons = (Reason.CORRUPT, Reason.TIMEOUT, Reason.CORRUPT)
        for image_id, reason in zip(reversed(broken), reasons, strict=True):
            results.save(connection, model.id, [], [Failure(image_id, "1", reason, f"it was {reason}")])
    database.close()

    def start(*arguments: str | Path, code: int = 0) -> Outcome:
        outcome = invoke(*arguments, TAGONCE_DATABASE_URL=database_url)
        assert outcome.code == code, outcome.err
        assert "Traceback" not in outcome.err
        return outcome

    return start


# ── images that are gone ──


def test_every_command_that_reads_takes_gone(run: Run, tmp_path: Path) -> None:
    """The option is the same, with the same meaning."""
    for which, expected in (("exclude", [0, 2]), ("include", [0, 1, 2]), ("only", [1])):
        option = ("--gone", which)
        found = run("search", "tag_01:0.1", *option).out.split()
        assert found == [PLACES[place] for place in expected]
        counted = [json.loads(line) for line in run("counts", "-t", "0.1", "--json", *option).out.splitlines()]
        assert {one["tag"]: one["images"] for one in counted}["tag_01"] == len(expected)
        assert sum(one["images"] for one in run("histogram", "tag_01", "--json", *option).json["bins"]) == len(expected)
        written = run("export", "--format", "jsonl", "-t", "0.1", *option).out.splitlines()
        every = expected if which == "only" else [*expected, 3]
        assert [json.loads(line)["uri"] for line in written] == [PLACES[place] for place in every]
        assert run("thresholds", "diff", "0.1", "0.85", "--json", *option).json["images"] == len(every)
        (tmp_path / "truth.jsonl").write_text("".join(f'{{"uri": "{uri}", "tags": ["tag_01"]}}\n' for uri in PLACES))
        judged = run("evaluate", "truth.jsonl", "--json", *option).json
        assert judged["truth"]["images"] == len(every)


def test_what_is_gone_can_be_listed(run: Run) -> None:
    assert run("search", "--gone", "only").out == f"{PLACES[1]}\n"
    assert run("search", "--gone", "only", "--under", "s3://b/a", "--count").out == "1\n"
    assert "There is no query" in run("search", "--gone", "include", code=2).err


def test_status_tells_them_apart(run: Run) -> None:
    found = run("status", "--json").json
    assert (found["images"], found["done"], found["gone"]) == (6, 3, 1)
    shown = run("status").out
    assert "excluded from all counts" in shown


def test_enqueue_marks_when_it_is_told_to(
    migrated_sqlite_url: str,
    redis_server: RedisServer,
    invoke: Run,
    make_photos: MAKER,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Never if the listing was not complete."""
    opened = open_database(migrated_sqlite_url)
    make_model(opened)
    photos = make_photos(4)
    sending = (
        "enqueue",
        photos[0].parent,
        "--model",
        "1",
        "--database",
        migrated_sqlite_url,
        "--broker",
        redis_server.url,
    )
    assert invoke(*sending, "--json").json == {"seen": 4, "sent": 4}
    photos[0].unlink()
    assert invoke(*sending, "--json").json == {"seen": 3, "sent": 3}

    def interrupted(root: str, names: NameFilter) -> Iterator[Reference]:
        yield from in_folder(root, names)
        raise SourceError("the disk was pulled out")

    with monkeypatch.context() as patch:
        patch.setattr(sources, "in_folder", interrupted)
        broken = invoke(*sending, "--gone", "mark")
        assert (broken.code, "pulled out" in broken.err) == (1, True)
    with opened.read() as connection:
        assert gone.count(connection) == 0
    assert invoke(*sending, "--gone", "mark", "--json").json == {"seen": 3, "sent": 3, "gone": 1}
    with opened.read() as connection:
        assert gone.count(connection) == 1
    opened.close()
    refused = invoke("enqueue", "--pending", "--gone", "mark", *sending[2:])
    assert (refused.code, "needs sources" in refused.err) == (2, True)


# ── forgetting ──


def test_forget_shows_what_would_go_and_asks_first(run: Run) -> None:
    looked = run("forget", "--gone", "--dry-run")
    assert looked.err.splitlines() == [
        "1 image, with 1 prediction, 0 failures and 0 labels of 0 images:",
        "  s3://b/a/2.jpg",
    ]
    assert "Repeat with --yes" in run("forget", "--gone", code=2).err
    assert "Nothing to forget" in run("forget", code=2).err
    assert run("search", "tag_01:0.1", "--gone", "only").out
    done = run("forget", "--gone", "--yes", "--json").json
    assert (done["images"], done["deleted"], done["examples"]) == (1, 1, ["s3://b/a/2.jpg"])
    assert not run("search", "tag_01:0.1", "--gone", "only").out
    assert "No images match" in run("forget", "--gone", "--yes").err
    assert "7 more" not in run("forget", "s3://b/", "--under", "s3://b/c/", "--dry-run").err
    assert run("forget", "s3://b/a/", "--under", "s3://b/c/", "--yes", "--json").json["deleted"] == 4
    assert run("status", "--json").json["images"] == 2


# ── failures ──


def test_failures_are_told_one_by_one(run: Run) -> None:
    """In formats for people, for programs, and for xargs."""
    table = run("failures")
    lines = table.out.splitlines()
    assert len(lines) == 4
    assert "it was timeout" in table.out
    assert "3 failures" in table.err
    found = [json.loads(line) for line in run("failures", "--reason", "corrupt", "--json").out.splitlines()]
    assert [(one["uri"], one["reason"], one["attempts"]) for one in found] == [
        ("s3://b/c/a\nb.jpg", "corrupt", 1),
        ("s3://b/c/damaged.jpg", "corrupt", 1),
    ]
    assert run("failures", "-0", "--limit", "2").out == "s3://b/c/a\nb.jpg\0s3://b/c/away.jpg\0"
    assert run("failures", "--under", "s3://b/a", "--json").out == ""
    assert "showing the latest 1" in run("failures", "--limit", "1").err


def test_trying_again_is_advised_where_it_can_help(run: Run) -> None:
    """Damaged files stay damaged: a retry of those alone is never named."""
    assert ui.failure_advice([Reason.TIMEOUT]).endswith("tagonce retry.")
    assert "retry --reason timeout" in ui.failure_advice([Reason.CORRUPT, Reason.TIMEOUT])
    for reason in (Reason.CORRUPT, Reason.UNSUPPORTED, Reason.MISSING):
        assert "retry" not in ui.failure_advice([reason])
    assert ui.failure_advice([]) == ""
    shown = run("status").out
    assert "tagonce retry --reason timeout" in shown
    assert "tagonce failures" in shown


# ── places ──


@pytest.fixture
def places(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """The uri prefix of a place. Registered are files of a missing folder below the home folder, and objects."""
    model = make_model(database)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    names = ("2024/a b.jpg", "2024-old/b.jpg", unicodedata.normalize("NFD", "Müll/c.jpg"))
    uris = [
        *(file_uri(str(home / "Pictures" / name)) for name in names),
        "s3://bucket/2024/x.jpg",
        "s3://buckets/y.jpg",
    ]
    with database.write() as connection:
        register(connection, [Reference(uri, "1", 1) for uri in uris], model.id)

    def find(place: str) -> str:
        with database.read() as connection:
            return uri_prefix(connection, place)

    return find


def test_a_place_is_found_however_it_is_written(places: Callable[[str], str]) -> None:
    home = os.environ["HOME"]
    folder = file_uri(f"{home}/Pictures/2024/")
    for written in (
        "~/Pictures/2024",
        "~/Pictures/2024/",
        "Pictures/2024",
        "./Pictures//2024",
        "Pictures/../Pictures/2024",
        f"{home}/Pictures/2024",
        f"file://{home}/Pictures/2024",
        f"FILE://{home}/Pictures/2024/",
        f"file://localhost{home}/Pictures/2024",
    ):
        assert places(written) == folder
    assert places("~/Pictures/2024/a b.jpg") == places(f"file://{home}/Pictures/2024/a%20b.jpg") == f"{folder}a%20b.jpg"
    assert places("~/Pictures/20") == folder.removesuffix("24/")
    for written in (unicodedata.normalize("NFC", "~/Pictures/Müll"), unicodedata.normalize("NFD", "~/Pictures/Müll/")):
        assert places(written) == file_uri(unicodedata.normalize("NFD", f"{home}/Pictures/Müll/"))
    assert places("S3://bucket") == places("s3://bucket/") == "s3://bucket/"
    assert places("S3://bucket/20") == "s3://bucket/20"
    assert places("/") == "file:///"
    assert places("s3://") == "s3://"


def test_a_place_without_images_is_said(places: Callable[[str], str]) -> None:
    for nowhere in ("nowhere", "~/Pictures/2024/b.jpg", "S3://bucket/2025", "Pictures/202/"):
        with pytest.raises(SettingsError, match=r"No image is registered under .*Registered, for example: .*b\.jpg"):
            places(nowhere)
    for odd in ("https://x/y", "s3:///key", "file://host/x"):
        with pytest.raises(SettingsError, match="is not a folder, file or s3:// prefix"):
            places(odd)


def test_every_command_that_takes_a_place_says_that_it_has_none(run: Run) -> None:
    for arguments in (
        ("counts", "--under", "nowhere"),
        ("export", "--under", "nowhere"),
        ("search", "tag_01", "--under", "nowhere"),
        ("search", "under:nowhere"),
        ("counts", "--query", "under:nowhere"),
        ("thresholds", "diff", "0.3", "0.5", "--under", "nowhere"),
        ("failures", "--under", "nowhere"),
        ("forget", "nowhere"),
        ("forget", "--under", "nowhere"),
    ):
        assert "No image is registered under 'nowhere'" in run(*arguments, code=2).err, arguments
    assert run("search", "tag_01 under:S3://b/a").out == f"{PLACES[0]}\n"
    assert run("counts", "--under", "S3://b/a", "-t", "0.1", "--json").out.count("\n") == 1


# ── profiles ──


def test_profiles_can_be_deleted(run: Run, database_url: str) -> None:
    """One version, or all of a name, after a confirmation, with their thresholds by tag."""
    for threshold in ("0.3", "0.4", "0.5"):
        run("thresholds", "save", "--name", "mine", "-t", threshold)
    run("thresholds", "save", "--name", "other", "-t", "0.3")
    assert "Repeat with --yes" in run("thresholds", "delete", "mine@2", code=2).err
    assert "no profile 'mnie'" in run("thresholds", "delete", "mnie", "--yes", code=2).err
    assert "1 profile deleted" in run("thresholds", "delete", "mine@2", "--yes").err
    assert [one["profile"] for one in run("thresholds", "list", "--json").json] == ["mine@1", "mine@3", "other@1"]
    assert "2 profiles deleted" in run("thresholds", "delete", "mine", "--yes").err
    assert [one["profile"] for one in run("thresholds", "list", "--json").json] == ["other@1"]
    database = open_database(database_url)
    with database.read() as connection:
        model = models.latest(connection)
        left = select(func.count(profile_thresholds.c.profile_id.distinct()))
        assert connection.scalar(left) == 1
        assert model.name == "tiny"
    database.close()


def test_the_list_of_profiles_has_a_line_a_row_on_a_narrow_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("thresholds", "save", "--name", "mine-for-characters", "-t", "0.35", "--tag-threshold", "tag_01=0.5")
    monkeypatch.setattr(ui.output, "_width", 80)
    lines = run("thresholds", "list").out.splitlines()
    assert len(lines) == 2
    assert all(len(line) <= 80 for line in lines)
    assert "0.35, 1 tag" in lines[1]


def test_what_is_piped_is_not_broken(run: Run, tagonce: Run, database_url: str) -> None:
    """A path stays on one line, however narrow the assumed terminal is."""
    long = "s3://b/" + "a-rather-long-folder/" * 12 + "1.jpg"
    database = open_database(database_url)
    with database.read() as connection:
        model = models.latest(connection)
    store(database, model, [long], [{1: 9000}])
    database.close()
    shown = tagonce("search", "tag_01:0.1", "--format", "table", COLUMNS="80", TAGONCE_DATABASE_URL=database_url)
    assert any(line.startswith(f" {long} ") for line in shown.out.splitlines()), shown
