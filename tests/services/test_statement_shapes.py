"""PostgreSQL: every statement and every table has a form that Citus runs with images spread over several servers."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from sqlalchemy import event, inspect, text, true

from db.database import Database
from db.errors import Reason
from db.ledger import gone, images, moved_labels, results
from db.ledger.duplicates import stored_results
from db.ledger.forget import forget
from db.ledger.images import Reference
from db.ledger.models import Model
from db.ledger.results import Failure, Prediction
from tests.fixtures.scores import NO_SCORES

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

REFUSED = {
    "locks of rows": r"\bfor (no key update|update|key share|share)\b",
    "a lateral outer join": r"\b(left|full)( outer)? join lateral\b",
    "a subquery for each element of a list": r"\bselect \(select\b.*\bfrom unnest\(",
}
"""Forms that Citus 13.2 refuses for tables that are distributed by image."""
BY_IMAGE = {
    "images": "id",
    "predictions": "image_id",
    "files": "image_id",
    "failures": "image_id",
    "labels": "image_id",
}
"""Tables that are distributed, and the column. The others are small, and have a copy on each server."""


@contextmanager
def recorded(database: Database) -> Iterator[list[str]]:
    """The statements of a block, each on one line, in lower case."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        found.append(" ".join(statement.lower().split()))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def refused(statements: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, one) for one in statements for name, form in REFUSED.items() if re.search(form, one)]


@pytest.mark.parametrize(
    "statement",
    [
        "select id from images where id = any('{1,2}') order by id for no key update",
        "select * from unnest('{a}'::text[]) as f (uri) left join lateral (select 1 from images) i on true",
        "select (select image_id from files where files.sha256 = w.sha256 limit 1) from unnest('{}'::bytea[]) as w",
    ],
)
def test_the_forms_that_citus_refuses_are_recognised(database: Database, statement: str) -> None:
    assert database.dialect == "postgresql"
    assert len(refused([statement])) == 1


def test_the_ledger_has_no_statement_that_citus_refuses(database: Database, model: Model) -> None:
    """Images are registered, changed, lost, seen again, read, found to be copies, and deleted."""

    def register(version: str, number: int = 4) -> list[int]:
        with database.write() as connection:
            return images.register(connection, [Reference(f"s3://b/{n}", version, 9) for n in range(number)], model.id)

    with recorded(database) as statements:
        first, second, third, fourth = register("1")
        done = [Prediction(one, "1", 10, 6, 4, "jpeg", bytes(32), NO_SCORES) for one in (first, second)]
        for _ in range(2):
            with database.write() as connection:
                results.save(connection, model.id, done, [Failure(third, "1", Reason.CORRUPT, "")])
                gone.mark(connection, [fourth])
        assert register("2", 1) == [first]
        with database.write() as connection:
            assert set(stored_results(connection, model.id, [bytes(32), b"a" * 32])) == {bytes(32)}
            moved_labels.move_labels(connection, [first])
            assert [one.id for one in images.pending_among(connection, [first, second], model.id)] == [first]
            assert images.pending_after(connection, model.id, 0, 9) == [first]
            assert results.clear_failures(connection, model.id) == [third]
        assert forget(database, true(), keep_labels=True) == 4
    assert len(statements) > 20
    assert refused(statements) == []


def test_no_unique_key_spans_servers_and_no_trigger_is_ours(database: Database, model: Model) -> None:
    """Citus enforces a key within each server only. The key of uris is the one that has to be dropped there."""
    assert model.id
    with database.read() as connection:
        keys = {
            (table, key["name"])
            for table, column in BY_IMAGE.items()
            for key in [
                inspect(connection).get_pk_constraint(table),
                *inspect(connection).get_unique_constraints(table),
                *({**one, "constrained_columns": one["column_names"]} for one in inspect(connection).get_indexes(table)
                  if one["unique"]),
            ]
            if column not in key.get("constrained_columns", key.get("column_names", ()))
        }  # fmt: skip
        triggers = connection.scalar(text("select count(*) from pg_trigger where not tgisinternal"))
    assert keys == {("images", "images_uri_key")}
    assert triggers == 0
