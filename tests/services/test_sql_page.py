"""docs/sql.md and the README are correct: each query runs unchanged and gives the documented rows."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert, text

from db.database import Database, open_database
from db.errors import Reason
from db.ledger import images, models, results
from db.ledger.images import Reference
from db.ledger.models import Tag
from db.ledger.results import Failure, Prediction
from db.policy import profiles
from db.policy.policies import Policy
from db.schema import gone
from db.scores import Scores
from db.truth import labels
from db.truth.labels import Drawn

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sql.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
TAGS = ("animal", "cat", "dog", "car")

CAT, DOG, CAR = (f"file:///photos/{name}.jpg" for name in ("cat", "dog", "car"))
SCORES = {
    CAT: {"animal": 9000, "cat": 8000, "dog": 300},
    DOG: {"animal": 9500, "dog": 4900, "cat": 700},
    CAR: {"car": 200},
}
BROKEN, NEW = "file:///photos/broken.jpg", "file:///photos/new.jpg"


def queries(kind: str) -> dict[str, str]:
    """The queries by the sentence above each of them."""
    found = re.findall(rf"([^\n]+):\n\n```{kind}\n(.*?)```", PAGE, re.DOTALL)
    assert len(found) == len(re.findall(rf"```{kind}\n", PAGE))
    return dict(found)


PORTABLE = {
    "The tags of one image at 0.35": [("animal", 0.9), ("cat", 0.8)],
    "Images with a tag at 0.5, best first": [(CAT, 0.8)],
    "One tag and not another, each at its own threshold": [(CAT,)],
    "Images that keep no tag at all at 0.35": [(CAR,)],
    "How many images each tag would get at 0.35": [("animal", 2), ("cat", 1), ("dog", 1)],
    "Tags lost by moving the threshold from 0.35 to 0.5, tag by tag": [("dog", 1)],
    "The histogram of a tag's scores, in tenths": [(0, 1), (8, 1)],
    "Tags that occur together with one": [("animal", 1)],
    "A separate threshold for some tags, 0.35 for the rest": [
        (CAT, "animal", 0.9), (CAT, "cat", 0.8), (DOG, "animal", 0.95), (DOG, "dog", 0.49),
    ],
    "A saved profile": [(CAR, "car", 0.02), (CAT, "cat", 0.8), (DOG, "animal", 0.95), (DOG, "dog", 0.49)],
    "How often each tag is kept by it": [("animal", 1), ("car", 1), ("cat", 1), ("dog", 1)],
    "Judgements by people, on files that have not changed since": [
        (CAR, "animal", False, "ann", "line", None), (CAT, "cat", False, "bob", "random", 0.8),
        (CAT, "cat", True, "ann", "random", 0.8), (CAT, "dog", False, "ann", "line", 0.03),
    ],
    "The majority on each tag of each image, above 0 where it is right": [(CAR, "animal", -1), (CAT, "dog", -1)],
    "Images that one model has done and another has not": [(CAR,), (DOG,)],
    "Failed images, with reasons": [("corrupt", BROKEN, "truncated")],
    "Images still pending for model 1": [(NEW,)],
    "Images marked as gone, with dates (`not in (select image_id from gone)` leaves them out of any other query)": [
        (BROKEN, "2026-01-01 00:00:00"),
    ],
    "Files with the same content under several names": [(b"\0" * 32, 2, CAR)],
}  # fmt: skip
OF_TWO_MODELS = ("Images that one model has done and another has not",)
ON_POSTGRESQL = {
    "How many tags there are at 0.35, and on how many images": [(2, 4)],
    "How many images each tag would get at 0.35": [("animal", 2), ("cat", 1), ("dog", 1)],
    "Images with one tag at 0.5 and without another at 0.2": [(CAT,)],
    "The histogram of a tag's scores, in tenths": [(0, 1), (8, 1)],
    "The caption of every image, tags by falling probability": [
        (CAR, None),
        (CAT, "animal, cat"),
        (DOG, "animal, dog"),
    ],
}
"""The rows of each sentence's query on the images above. Without `order by` the order of rows is not compared."""


def fill(database: Database) -> None:
    """Store three predictions of model 1, a failure, a pending image, a profile, labels, and a second model."""
    with database.write() as connection:
        tags = [Tag(name) for name in TAGS]
        page, other = (
            models.register(
                connection,
                name=name,
                weights_sha256=name,
                spec={},
                tag_list=tags,
                floor=100,
                default_threshold=3500,
            )
            for name in ("page", "other")
        )
        uris = [*SCORES, BROKEN, NEW]
        pending = images.register(connection, [Reference(uri, "1", 1) for uri in uris], page.id)
        ids = dict(zip(sorted(uris), pending, strict=True))  # new rows are written in the order of uris
        done = [
            # Two of the images are the same file.
            Prediction(ids[uri], "1", 1, 10, 10, "jpeg", bytes(31) + bytes([uri == DOG]), ascending(scores))
            for uri, scores in SCORES.items()
        ]
        results.save(connection, page.id, done, [Failure(ids[BROKEN], "1", Reason.CORRUPT, "truncated")])
        seen = Prediction(ids[CAT], "1", 1, 10, 10, "jpeg", bytes(32), ascending({"animal": 8500}))
        results.save(connection, other.id, [seen], [])
        connection.execute(insert(gone).values(image_id=ids[BROKEN], gone_at=datetime(2026, 1, 1, tzinfo=UTC)))
        policy = Policy(3500, tags={"animal": 9200, "cat": 6000, "dog": 2000, "car": 100})
        profiles.save(connection, page, "mine", policy, source="a test")
        for uri, tag, is_right, by, drawn in (
            (CAT, "cat", True, "ann", Drawn.RANDOM),
            (CAT, "cat", False, "bob", Drawn.RANDOM),
            (CAT, "dog", False, "ann", Drawn.LINE),
            (CAR, "animal", False, "ann", Drawn.LINE),
        ):
            labels.save(connection, page, ids[uri], TAGS.index(tag), is_right, by=by, drawn=drawn)


def ascending(by_name: Mapping[str, int]) -> Scores:
    ordered = sorted(by_name.items(), key=lambda pair: pair[1])
    return Scores(
        np.array([TAGS.index(name) for name, _score in ordered], dtype=np.int16),
        np.array([score for _name, score in ordered], dtype=np.int16),
    )


def ask(database: Database, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query as plain values, sorted if the query has no `order by`."""
    with database.read() as connection:
        rows = [tuple(_plain(value) for value in row) for row in connection.execute(text(query))]
    return rows if "order by" in query.partition("where")[2] else sorted(rows)


def _plain(value: Any) -> Any:
    """Numbers as floats, times in the format of SQLite."""
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, str) and value.startswith("2026-01-01 "):
        return value.partition(".")[0]
    return float(value) if isinstance(value, Decimal) else value


@pytest.mark.parametrize("sentence", PORTABLE)
def test_a_query_gives_what_its_sentence_promises(database: Database, sentence: str) -> None:
    fill(database)
    if sentence not in OF_TWO_MODELS:
        with database.write() as connection:
            connection.execute(text("delete from models where name = 'other'"))
    assert ask(database, queries("sql")[sentence]) == PORTABLE[sentence]


@pytest.mark.parametrize("sentence", ON_POSTGRESQL)
def test_a_query_for_postgresql_gives_the_same_there(migrated_postgres_url: str, sentence: str) -> None:
    database = open_database(migrated_postgres_url)
    fill(database)
    assert ask(database, queries("postgresql")[sentence]) == ON_POSTGRESQL[sentence]
    database.close()


def test_every_query_of_the_page_is_tested() -> None:
    assert set(queries("sql")) == set(PORTABLE)
    assert set(queries("postgresql")) == set(ON_POSTGRESQL)


def test_the_query_of_the_readme_is_one_of_the_page() -> None:
    (query,) = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    assert query in PAGE
