"""The README is true: its queries run, its settings and commands are the program's."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text
from typer.main import get_command

from db import images, models, results
from db.database import Database
from db.errors import Reason
from db.images import Reference
from db.models import Tag
from db.results import Failure, Prediction
from db.scores import Scores
from tagonce.cli import app
from tagonce.settings import Settings

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
TAGS = ("animal", "cat", "dog", "car")

SCORES = {
    "file:///photos/cat.jpg": {"animal": 9000, "cat": 8000, "dog": 300},
    "file:///photos/dog.jpg": {"animal": 9500, "dog": 4100, "cat": 700},
    "file:///photos/car.jpg": {"car": 200},
}


@pytest.fixture
def filled(database: Database) -> Iterator[Database]:
    """Three predictions, one failure, one image that is pending."""
    with database.write() as connection:
        model = models.register(
            connection,
            name="readme",
            weights_sha256="0" * 64,
            spec={},
            tag_list=[Tag(name) for name in TAGS],
            floor=100,
            default_threshold=3500,
        )
        uris = [*SCORES, "file:///photos/broken.jpg", "file:///photos/new.jpg"]
        ids = dict(
            zip(uris, images.register(connection, [Reference(uri, "1", 1) for uri in uris], model.id), strict=True)
        )
        done = [
            Prediction(ids[uri], "1", 1, 10, 10, "jpeg", b"\0" * 32, _scores(scores)) for uri, scores in SCORES.items()
        ]
        failed = [Failure(ids["file:///photos/broken.jpg"], "1", Reason.CORRUPT, "truncated")]
        results.save(connection, model.id, done, failed)
    return database


def _scores(by_name: dict[str, int]) -> Scores:
    ordered = sorted(by_name.items(), key=lambda pair: pair[1])
    return Scores(
        np.array([TAGS.index(name) for name, _score in ordered], dtype=np.int16),
        np.array([score for _name, score in ordered], dtype=np.int16),
    )


def test_there_are_ten_queries_or_more() -> None:
    assert len(QUERIES) >= 10


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: " ".join(query.split())[:60])
def test_query_runs_and_finds_something(filled: Database, query: str) -> None:
    """As it stands in the README, on both databases."""
    with filled.read() as connection:
        assert connection.execute(text(query)).fetchall()


def test_queries_give_the_right_rows(filled: Database) -> None:
    """A few whose answer is known."""

    def ask(words: str) -> list[tuple[object, ...]]:
        (query,) = [query for query in QUERIES if words in query]
        with filled.read() as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    assert [(tag, float(probability)) for tag, probability in ask("uri = 'file:///photos/cat.jpg'")] == [
        ("animal", 0.9),
        ("cat", 0.8),
    ]
    assert ask("except select") == [("file:///photos/cat.jpg",)]
    assert ask("not exists") == [("file:///photos/car.jpg",)]
    assert ask("as lost") == [("dog", 1)]
    assert ask("f.reason, i.uri") == [("corrupt", "file:///photos/broken.jpg", "truncated")]
    assert ask("p.image_id is null") == [("file:///photos/new.jpg",)]


def test_every_setting_stands_in_the_table_with_its_default() -> None:
    for name, setting in Settings.model_fields.items():
        default = "" if setting.default is None else f"`{setting.default}`"
        assert f"| `TAGONCE_{name.upper()}` | {default} | {setting.description} |" in README


def test_the_table_names_no_setting_that_does_not_exist() -> None:
    named = set(re.findall(r"^\| `TAGONCE_(\w+)`", README, re.MULTILINE))
    assert named == {name.upper() for name in Settings.model_fields}


def test_every_command_stands_in_the_table_and_has_an_example_in_its_help() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert set(re.findall(r"^\| `tagonce (\w+)", README, re.MULTILINE)) == set(commands)
    for name, command in commands.items():
        assert f"Example: tagonce {name}" in (command.help or "")
