"""PostgreSQL behind a pooler in transaction mode, where the state of a session ends with the transaction."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

from db.database import Database, open_database
from db.errors import DatabaseError, SettingsError
from db.ledger import images
from db.ledger.images import Reference
from db.sql.connection.connections import lift_statement_timeout
from tests.fixtures.pooler import Pooler
from tests.services.conftest import make_model

WITHOUT = "&prepare_threshold=none"


def work(opened: Database, rounds: int = 12) -> int:
    """Run transactions of producers and workers, with several clients at once. Returns the number of images."""
    with opened.read() as one, opened.read() as other:
        assert one.scalar(text("select 1")) == other.scalar(text("select 1"))
    model = make_model(opened)
    for number in range(rounds):
        with opened.write() as connection:
            images.register(connection, [Reference(f"s3://b/{number}-{each}", "1", 1) for each in range(5)], model.id)
    with opened.read() as connection:
        streamed = connection.execute(text("select uri from images"), execution_options={"yield_per": 10})
        return len(list(streamed))


def asked_often(opened: Database) -> None:
    """Run the same statement several times, each in its own transaction."""
    for number in range(20):
        with opened.read() as connection:
            assert connection.scalar(text("select cast(:number as int)"), {"number": number}) == number


def test_without_prepared_statements_everything_works(pooler: Pooler) -> None:
    """Migrations with their lock, writes, and reads by a cursor."""
    for spelt in ("none", "0"):
        opened = open_database(f"{pooler.url}&prepare_threshold={spelt}")
        try:
            assert work(opened) == 60
            asked_often(opened)
        finally:
            opened.close()


def test_with_them_there_is_a_sentence(pooler: Pooler) -> None:
    """Psycopg prepares a statement at its fifth execution, on some server connection, and later uses it on another."""
    opened = open_database(f"{pooler.url}{WITHOUT}")
    opened.close()
    opened = Database(pooler.url)
    try:
        with pytest.raises(DatabaseError, match=r"pooler.*prepare_threshold=none"):
            asked_often(opened)
    finally:
        opened.close()


def test_limits_are_ours_alone(pooler: Pooler) -> None:
    """A limit of the session would stay on the server connection, and cancel the export of another client."""
    page, export = (Database(f"{pooler.url}{WITHOUT}") for _ in range(2))
    page.limit_statements(3)
    page.limit_waiting_for_locks()
    seen = []
    for opened, expected in ((page, ("3s", "1min")), (export, ("0", "0"))) * 4:
        with opened.read() as connection:
            show = tuple(connection.scalar(text(f"show {name}")) for name in ("statement_timeout", "lock_timeout"))
        assert show == expected, seen
        seen.append(show)
    with page.read() as connection:
        lift_statement_timeout(connection)
        assert connection.scalar(text("show statement_timeout")) == "0"
    page.close()
    export.close()


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("prepare_threshold=often", "prepare_threshold must be a number or none, not 'often'"),
        ("autocommit=true", "autocommit.* cannot be set"),
        ("poolmode=x", 'invalid connection option "poolmode"'),
    ],
)
def test_an_option_that_the_driver_does_not_know_is_a_sentence(query: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        Database(f"postgresql://u@h/d?{query}")


def test_options_of_libpq_and_psycopg_are_taken(postgres_url: str) -> None:
    for query in ("prepare_threshold=2", "prepare_threshold=None", "connect_timeout=3&application_name=x"):
        opened = open_database(f"{postgres_url}&{query}")
        opened.close()


def test_doctor_sees_the_pooler(pooler: Pooler, doctor: Callable[..., list[dict[str, str]]]) -> None:
    open_database(f"{pooler.url}{WITHOUT}").close()
    for url, status, words in ((f"{pooler.url}{WITHOUT}", "ok", "a pooler"), (pooler.url, "warning", "a pooler")):
        found = doctor("--database", url, "--model", "demo")
        (line,) = [one for one in found if one["check"] == "database" and words in one["message"]]
        assert line["status"] == status
        assert ("prepare_threshold=none" in line["advice"]) is (status == "warning")
