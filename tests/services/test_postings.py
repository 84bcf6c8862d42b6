"""Postings: counts from them equal counts of the rows, whatever is written or killed meanwhile."""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select, text

from db.database import Database, open_database
from db.ledger import changed_blocks, forget, gone
from db.ledger.models import Model
from db.policy.policies import Policy, resolve
from db.postings import block_format, build
from db.postings.build import drop_postings, update_postings
from db.postings.state import read_state
from db.read.comparison import compare
from db.read.distribution import count_scores
from db.read.histograms import histogram
from db.read.tag_counts import tag_counts
from db.schema import images, posting_blocks, postings, predictions
from db.scores import NEVER, SCALE
from db.search import conditions
from db.search.execute import search
from db.search.tree import And, Node, Not, Or, Reaches
from db.sql.connection.locks import lock_images
from tests.fixtures.examples import up_to
from tests.fixtures.indexed import SECOND_BLOCK, Index, bring, straddle_blocks
from tests.services.conftest import TAGS
from tests.services.test_search import store

Register = Callable[..., list[int]]
Row = dict[int, int]
"""The scores of an image, by tag id."""

IMAGES, FLOOR, OF_POSTINGS = 6, 100, 1_000

some_scores = st.sampled_from([FLOOR, 999, 1000, 1001, 3500, SCALE - 1, SCALE]) | st.integers(FLOOR, SCALE)
some_rows = st.lists(st.dictionaries(st.integers(0, 6), some_scores), min_size=IMAGES, max_size=IMAGES)
some_cuts = st.sampled_from([FLOOR, 1000, 3500, SCALE, NEVER]) | st.integers(OF_POSTINGS, SCALE)
some_policies = st.builds(
    Policy,
    default=some_cuts,
    tags=st.dictionaries(st.sampled_from(["tag_01", "tag_02", "tag_03"]), some_cuts, max_size=2),
)


def once_before_writing(monkeypatch: pytest.MonkeyPatch, then: Callable[[], object]) -> None:
    """Call a function when the next builder has read its first block, and has not written it yet."""
    read = build.read_contents

    def read_and_be_late(*arguments: Any) -> build.Contents:
        contents = read(*arguments)
        monkeypatch.undo()
        then()
        return contents

    monkeypatch.setattr(build, "read_contents", read_and_be_late)


@pytest.fixture
def straddling(database: Database, registered: Register) -> list[int]:
    """Images in two blocks, and one before them that no model has tagged."""
    straddle_blocks(database)
    return registered(IMAGES)


# ── counts ──


def test_counts_are_those_of_the_rows(database: Database, model: Model, straddling: list[int]) -> None:
    """Images of each tag, changes between policies, histograms and the distribution; without one image that is gone."""
    with database.write() as connection:
        gone.mark(connection, [straddling[1]])

    def answers(one: Policy, other: Policy) -> list[Any]:
        first, second = resolve(model, TAGS, one), resolve(model, TAGS, other)
        with database.read() as connection:
            changes = compare(connection, model, first, second)
            counted = count_scores(connection, model)
            return [
                tag_counts(connection, model, first),
                [np.asarray(getattr(changes, field.name)).tolist() for field in fields(changes)],
                [histogram(connection, model, 1, bins) for bins in (1, 20, 30, 1000)],
                counted.images,
                counted.reaching.tolist(),
                counted.unchanged.tolist(),
            ]

    @hypothesis_settings(max_examples=up_to(8), deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(some_rows, some_policies, some_policies)
    def check(rows: list[Row], one: Policy, other: Policy) -> None:
        store(database, model, straddling, rows)
        bring(database, model, Index.NONE, OF_POSTINGS)
        expected = answers(one, other)
        for index in (Index.CURRENT, Index.PARTLY):
            bring(database, model, index, OF_POSTINGS)
            assert answers(one, other) == expected

    check()


def test_blocks_may_have_different_floors(database: Database, model: Model, straddling: list[int]) -> None:
    """After a change of the floor that was interrupted between two blocks."""
    store(database, model, straddling, [{1: 150 + 331 * number, 2: 990} for number in range(IMAGES)])

    def answers() -> list[Any]:
        with database.read() as connection:
            counted = count_scores(connection, model)
            return [
                histogram(connection, model, 1, 100),
                histogram(connection, model, 2, 20),
                counted.reaching.tolist(),
            ]

    expected = answers()
    update_postings(database, model, floor=1000)
    stop = iter([False, True])
    assert update_postings(database, model, floor=500, should_stop=lambda: next(stop)) == 1
    assert answers() == expected


@pytest.mark.parametrize("floor", [FLOOR, 995, 3500])
def test_a_large_tag_has_several_pieces(database: Database, model: Model, registered: Register, floor: int) -> None:
    """Each is ascending by score, and the highest score is beside it."""
    number = 2 * block_format.PIECE + 5
    ids = registered(number)
    store(
        database, model, ids, [{0: 3500 + position * 7919 % 6000, 1: 990 + position % 20} for position in range(number)]
    )
    assert update_postings(database, model, floor=floor) == 1
    query = select(postings.c.highest, postings.c.images, postings.c.scores).where(postings.c.tag_id == 0)
    with database.read() as connection:
        found = connection.execute(query.order_by(postings.c.piece)).all()
        histograms = [histogram(connection, model, tag, 100).counts for tag in (0, 1)]
    scores = [block_format.numbers([row.scores]).tolist() for row in found]
    assert [len(piece) for piece in scores] == [block_format.PIECE, block_format.PIECE, 5]
    assert [piece[-1] for piece in scores] == [row.highest for row in found]
    pairs = sorted((3500 + position * 7919 % 6000, image_id) for position, image_id in enumerate(ids))
    assert [score for piece in scores for score in piece] == [score for score, _ in pairs]
    places = [place for row in found for place in block_format.numbers([row.images]).tolist()]
    assert places == [image_id % block_format.BLOCK for _, image_id in pairs]
    assert sum(histograms[0]) == number
    assert histograms[1][9:11] == [
        sum(position % 20 < 10 for position in range(number)),
        number - sum(position % 20 < 10 for position in range(number)),
    ]


# ── the view ──


@pytest.mark.parametrize("index", Index)
def test_the_view_has_the_scores_from_the_floor_of_the_postings_on(
    database: Database, model: Model, straddling: list[int], index: Index
) -> None:
    """Without postings all stored scores."""
    rows: list[Row] = [{0: 3499, 1: 128}, {0: 3500}, {0: 9999, 19: 3600}, {0: 10_000}, {0: 3599, 2: 4000}, {}]
    store(database, model, straddling, rows)
    bring(database, model, index, 3500)
    lowest = FLOOR if index is Index.NONE else 3500
    expected = [
        (model.id, tag, f"tag_{tag:02}", image_id, score)
        for image_id, row in zip(straddling, rows, strict=True)
        for tag, score in row.items()
        if score >= lowest
    ]
    with database.read() as connection:
        query = "select model_id, tag_id, tag, image_id, score, uri, category, probability from tag_images"
        found = connection.execute(text(query)).all()
        uris = dict(map(tuple, connection.execute(select(images.c.id, images.c.uri))))
    assert sorted(row[:5] for row in found) == sorted(expected)
    assert all(row.uri == uris[row.image_id] and row.category == TAGS[row.tag_id].category for row in found)
    assert all(float(row.probability) == row.score / SCALE for row in found)


# ── what is built ──


def state(database: Database, model: Model) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    with database.read() as connection:
        found = read_state(connection, model.id)
    return found.current, found.changed, found.floor


def test_writers_mark_the_blocks_that_they_change(
    database: Database, model: Model, other_model: Model, straddling: list[int]
) -> None:
    """Also what deletes predictions. Other models, and blocks without changes, are left alone."""
    store(database, model, straddling, [{0: 5000}] * IMAGES)
    assert state(database, model) == ((), (0, 1), 0)
    assert state(database, other_model) == ((), (), 0)
    assert update_postings(database, model) == 2
    assert update_postings(database, model) == 0
    assert state(database, model) == ((0, 1), (), 1000)
    store(database, model, straddling[:1], [{0: 6000}])
    assert state(database, model) == ((1,), (0,), 1000)
    assert update_postings(database, model) == 1
    with database.write() as connection:
        gone.mark(connection, straddling[-1:])
    forget.forget(database, forget.selection([], only_gone=True), keep_labels=False)
    assert state(database, model)[:2] == ((0,), (1,))
    assert update_postings(database, model) == 1
    assert update_postings(database, model, floor=2000) == 2
    assert state(database, model) == ((0, 1), (), 2000)
    assert drop_postings(database, model)
    assert not drop_postings(database, model)
    assert state(database, model) == ((), (0, 1), 0)
    with database.write() as connection:
        assert connection.scalar(select(func.count()).select_from(postings)) == 0


def test_a_writer_that_was_not_committed_keeps_its_block_changed(
    database: Database, model: Model, straddling: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The builder has read its snapshot before a writer commits."""
    store(database, model, straddling, [{0: 5000}] * IMAGES)
    once_before_writing(monkeypatch, lambda: store(database, model, straddling[:1], [{1: 7000}]))
    update_postings(database, model)
    assert state(database, model)[:2] == ((1,), (0,))
    with database.read() as connection:
        assert [hit.image_id for hit in search(connection, model, Reaches((1,), (7000,)))] == straddling[:1]


def test_the_slower_of_two_builders_discards_its_work(
    database: Database, model: Model, straddling: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would store postings of an older snapshot."""
    store(database, model, straddling, [{0: 5000}] * IMAGES)

    def write_and_build() -> None:
        store(database, model, straddling, [{1: 7000}] * IMAGES)
        assert update_postings(database, model) == 2

    for _again in range(2):
        once_before_writing(monkeypatch, write_and_build)
        assert update_postings(database, model) == 1  # the second block is built again
        assert state(database, model)[:2] == ((0, 1), ())
        with database.read() as connection:
            assert len(list(search(connection, model, Reaches((1,), (7000,))))) == IMAGES
            assert not list(search(connection, model, Reaches((0,), (5000,))))
        with database.write() as connection:
            changed_blocks.mark(connection, model.id, straddling)


def test_a_model_takes_its_postings_along(database: Database, model: Model, straddling: list[int]) -> None:
    store(database, model, straddling, [{0: 5000}] * IMAGES)
    update_postings(database, model)
    with database.write() as connection:
        connection.execute(text("delete from models"))
        for table in (postings, posting_blocks):
            assert connection.scalar(select(func.count()).select_from(table)) == 0


# ── a storm ──


BUILDER = """
import sys
from db.database import open_database
from db.ledger import models
from db.postings.build import update_postings
database = open_database(sys.argv[1])
with database.read() as connection:
    (model,) = models.every(connection)
print("ready", flush=True)
while True:
    update_postings(database, model)
"""
TREES: list[Node] = [
    Reaches((0,), (4000,)),
    And((Reaches((0,), (2000,)), Not(Reaches((1,), (6000,))))),
    Or((Reaches((2,), (9000,)), And((Not(Reaches((0, 3), (1000, 8000))), Reaches((4,), (500,)))))),
]


def write_at_random(url: str, model: Model, ids: list[int], seed: int, stop: threading.Event) -> None:
    """Write predictions, and now and then forget an image, until `stop` is set."""
    own, database = random.Random(seed), open_database(url)
    while not stop.is_set():
        some = sorted(own.sample(ids, 20))
        store(database, model, some, [{tag: own.randrange(FLOOR, SCALE) for tag in range(5)} for _ in some])
        if own.random() < 0.1:
            with database.write() as connection:
                victim = own.choice(ids)
                lock_images(connection, [victim])
                changed_blocks.mark(connection, model.id, [victim])
                connection.execute(delete(images).where(images.c.id == victim))
    database.close()


def test_searches_equal_a_scan_of_the_same_snapshot(
    database: Database, database_url: str, model: Model, registered: Register
) -> None:
    """While two writers write, images are forgotten, and builders are killed."""
    straddle_blocks(database, SECOND_BLOCK - 150)
    ids = registered(300)
    rng, stop = random.Random(7), threading.Event()
    compared = 0
    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write_at_random, database_url, model, ids, seed, stop) for seed in (1, 2)]
        try:
            for _builder in range(3):
                with subprocess.Popen(
                    [sys.executable, "-c", BUILDER, database_url], stdout=subprocess.PIPE, text=True
                ) as builder:
                    assert builder.stdout is not None
                    assert builder.stdout.readline() == "ready\n"
                    killed_at = time.monotonic() + rng.uniform(0.2, 0.8)
                    while time.monotonic() < killed_at:
                        compared += search_equals_scan(database, model)
                    builder.kill()
        finally:
            stop.set()
        for writer in writers:
            writer.result()
    assert compared
    update_postings(database, model)
    assert state(database, model)[1] == ()
    assert search_equals_scan(database, model)


def search_equals_scan(database: Database, model: Model) -> int:
    """Compare searches with SQL over all rows, in one transaction. Returns their number."""
    with database.read() as connection:
        for tree in TREES:
            condition = conditions.condition(connection, model.id, tree)
            query = select(predictions.c.image_id).where(predictions.c.model_id == model.id, condition)
            expected = list(connection.scalars(query.order_by(predictions.c.image_id)))
            assert [hit.image_id for hit in search(connection, model, tree)] == expected
    return len(TREES)
