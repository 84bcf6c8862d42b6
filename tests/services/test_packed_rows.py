"""SQLite's packed rows: the blobs, SQL on them, and the views, which any program with SQLite can read."""

import sqlite3
from collections.abc import Callable
from operator import itemgetter

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

from db.database import Database
from db.ledger import models, results
from db.ledger.models import Model, Tag
from db.ledger.results import Prediction
from db.schema import predictions
from db.scores import Scores
from db.search.execute import condition, count
from db.search.tree import Reaches
from db.sql.formats.blob_format import LIMITS, NARROW, WIDE, decode, encode, encode_one, rows_reaching
from db.sql.scores.conditions import FEW, ScoreOf
from db.sql.scores.packed import packed, unpack
from tests.fixtures.examples import up_to

Register = Callable[..., list[int]]

LARGE_MODEL = 20_000
"""More tags than fit in two bytes."""

widths = st.sampled_from([NARROW, WIDE])
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
thoroughly = hypothesis_settings(
    suppress_health_check=[HealthCheck.differing_executors], max_examples=up_to(60), deadline=None
)


def numbers(width: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, LIMITS[width] - 1), max_size=40)


def plain(value: int, width: int) -> bytes:
    """The format in plain Python."""
    if width == NARROW:
        return bytes([0x80 | value >> 7, value & 127])
    return bytes([0x80 | value >> 14, value >> 7 & 127, value & 127])


@given(widths, st.data())
def test_blobs_are_those_of_plain_python(width: int, data: st.DataObject) -> None:
    rows = data.draw(st.lists(numbers(width), max_size=6))
    blobs = encode([np.array(row, dtype=np.int64) for row in rows], width)
    assert blobs == [b"".join(plain(value, width) for value in row) for row in rows]
    assert [decode(blob).tolist() for blob in blobs] == rows


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_the_largest_number_of_each_width(width: int) -> None:
    for value in (0, 127, 128, 16_383, LIMITS[width] - 1):
        assert decode(encode_one(value, width)).tolist() == [value]


@given(widths, st.data())
def test_bytes_compare_like_numbers_and_only_whole_numbers_are_found(width: int, data: st.DataObject) -> None:
    row = data.draw(numbers(width))
    wanted = data.draw(st.integers(0, LIMITS[width] - 1) | (st.sampled_from(row) if row else st.nothing()))
    blob = b"".join(plain(value, width) for value in row)
    found = blob.find(plain(wanted, width))
    assert found == (row.index(wanted) * width if wanted in row else -1)
    assert sorted(row) == sorted(row, key=lambda value: plain(value, width))


@given(widths, st.integers(0, 10_001), st.data())
def test_many_rows_are_cut_as_one_by_one(width: int, low: int, data: st.DataObject) -> None:
    pair = st.tuples(st.integers(0, LIMITS[width] - 1), st.integers(0, 10_000) | st.just(min(low, 10_000)))
    rows = data.draw(st.lists(st.lists(pair, max_size=20).map(lambda row: sorted(row, key=itemgetter(1))), max_size=6))
    tag_ids = [b"".join(plain(tag, width) for tag, _ in row) for row in rows]
    blobs = [b"".join(plain(score, NARROW) for _, score in row) for row in rows]
    kept = [[(tag, score) for tag, score in row if score >= low] for row in rows]
    counts, found, scores = rows_reaching(tag_ids, blobs, low)
    assert counts.tolist() == [len(row) for row in kept]
    assert list(zip(found.tolist(), scores.tolist(), strict=True)) == [one for row in kept for one in row]


@on_sqlite
@pytest.mark.parametrize("tags", [200, LARGE_MODEL])
def test_every_question_has_the_same_answer_for_models_of_either_width(
    database: Database, registered: Register, tags: int
) -> None:
    """In our own SQL, and in the views as plain SQLite reads them, which has none of our functions."""
    (image,) = registered(1)
    with database.write() as connection:
        model = models.register(
            connection,
            name="large",
            weights_sha256="",
            spec={},
            tag_list=[Tag(f"tag_{number}") for number in range(tags)],
            floor=0,
            default_threshold=3500,
        )
    plain_sqlite = sqlite3.connect(str(database.file))

    @thoroughly
    @given(st.dictionaries(st.integers(0, tags - 1), st.integers(0, 10_000), max_size=30), st.data())
    def check(row: dict[int, int], data: st.DataObject) -> None:
        _store(database, model, image, row)
        assert _in_views(plain_sqlite) == {(f"tag_{tag}", score / 10_000) for tag, score in row.items()}
        low, high = sorted(data.draw(st.lists(st.integers(0, 10_001), min_size=2, max_size=2)))
        some = st.integers(0, tags - 1) | (st.sampled_from(sorted(row)) if row else st.nothing())
        several = data.draw(st.lists(some, min_size=1, max_size=3, unique=True))
        many = [*several, *(tag for tag in range(FEW + 5) if tag not in several)]
        with database.read() as connection:
            rows = connection.execute(select(*packed(connection, low)).select_from(predictions)).all()
            _counts, tag_ids, scores = unpack(connection, rows, low)
            assert dict(zip(tag_ids.tolist(), scores.tolist(), strict=True)) == {
                tag: score for tag, score in row.items() if score >= low
            }
            assert connection.scalar(select(ScoreOf(several[0])).select_from(predictions)) == row.get(several[0])
            for wanted in (several, many):
                expected = any(low <= row.get(tag, -1) < high for tag in wanted)
                tree = Reaches(tuple(wanted), (low,) * len(wanted), high)
                assert count(connection, model, tree) == expected
                where = select(predictions.c.image_id).where(condition(connection, model, tree))
                assert connection.scalars(where).all() == [image] * expected

    check()
    plain_sqlite.close()


def _store(database: Database, model: Model, image: int, row: dict[int, int]) -> None:
    pairs = sorted(row.items(), key=lambda pair: (pair[1], pair[0]))
    kept = Scores(np.array([tag for tag, _ in pairs], np.int16), np.array([score for _, score in pairs], np.int16))
    with database.write() as connection:
        connection.execute(delete(predictions))
        results.save(connection, model.id, [Prediction(image, "1", 10, 640, 480, "jpeg", b"h" * 32, kept)], [])


def _in_views(connection: sqlite3.Connection) -> set[tuple[str, float]]:
    rows, by_tag = (
        connection.execute(f"select tag, probability from {view}").fetchall()  # noqa: S608 - constants
        for view in ("tag_probabilities", "tag_images")
    )
    assert sorted(rows) == sorted(by_tag)
    assert len(rows) == len(set(rows))
    return set(rows)
