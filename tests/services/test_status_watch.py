"""`tagonce status --watch` without a terminal."""

import json
import signal
from collections.abc import Callable

from db.database import open_database
from tests.fixtures.command import Process, wait_until
from tests.services.conftest import make_model


def test_into_a_file_it_writes_one_look_after_the_other(
    migrated_sqlite_url: str, start_tagonce: Callable[..., Process]
) -> None:
    """As tables for people and as JSON lines for programs, each flushed at once."""
    opened = open_database(migrated_sqlite_url)
    make_model(opened)
    opened.close()
    arguments = ("status", "--watch", "--interval", "0.5", "--database", migrated_sqlite_url)
    tables, lines = start_tagonce(*arguments), start_tagonce(*arguments, "--json")
    wait_until(lambda: tables.words().count(" UTC\n") >= 2 and lines.words().count("\n") >= 2)
    for process in (tables, lines):
        process.signal(signal.SIGINT)
        assert process.wait() == 130
    assert tables.words().count("tiny") >= 2
    assert {json.loads(line)["model"]["name"] for line in lines.words().splitlines()} == {"tiny"}
