"""Samples from the database compared with a loop over all stored scores, on both databases."""

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import delete

from db import sampling
from db.database import Database
from db.ledger.models import Model
from db.postings.build import update_postings
from db.read.distribution import count_scores
from db.sampling import ScoredImage, near_threshold, random_images
from db.schema import predictions
from db.scores import NEVER, SCALE
from tests.fixtures.examples import up_to
from tests.services.conftest import make_model
from tests.services.test_judging import Rows, store

FLOOR, IMAGES = 100, 150

thoroughly = hypothesis_settings(
    max_examples=up_to(25), deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)


@pytest.fixture
def rows() -> Rows:
    """Tag 1 is on half of the images, tag 2 on a tenth, tag 3 on two of them, with few distinct scores."""
    rng = np.random.default_rng(5)
    shares = {1: 0.5, 2: 0.1}
    rows = [
        {tag: int(rng.integers(10, 1001)) * 10 for tag, share in shares.items() if rng.random() < share}
        for _ in range(IMAGES)
    ]
    rows[7][3] = rows[100][3] = 3500
    return rows


@pytest.fixture
def ids(database: Database, model: Model, rows: Rows) -> list[int]:
    """The ids of the images of `rows`. Every third image has lost its prediction again."""
    ids = store(database, model, [f"s3://b/{number:03}" for number in range(IMAGES)], rows)
    _forget(database, ids[::3])
    return [one for place, one in enumerate(ids) if place % 3]


@pytest.fixture
def looks_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes samples look images up by id. Otherwise so few images are all read."""
    for name, value in {"_SMALL": 10, "_FIRST": 10, "_SHARE": 5}.items():
        monkeypatch.setattr(random_images, name, value)


@pytest.fixture(params=[None, FLOOR, 3500])
def indexed(request: pytest.FixtureRequest, database: Database, model: Model, ids: list[int]) -> None:
    if request.param is not None:
        update_postings(database, model, floor=request.param)


def _forget(database: Database, ids: list[int]) -> None:
    with database.write() as connection:
        connection.execute(delete(predictions).where(predictions.c.image_id.in_(ids)))


# ── random images ──


def test_random_images_are_distinct_and_have_a_prediction(
    database: Database, model: Model, other_model: Model, ids: list[int], looks_up: None
) -> None:
    with database.read() as connection:
        for n in (0, 1, 30, 99, 100, 500):
            found = sampling.random_ids(connection, model, n, 3)
            assert len(set(found)) == len(found) == min(n, len(ids))
            assert set(found) <= set(ids)
            assert sampling.random_ids(connection, model, n, 3) == found
            assert sampling.random_ids(connection, other_model, n, 3) == []
        assert sampling.random_ids(connection, model, 30, 3) != sampling.random_ids(connection, model, 30, 4)


def test_every_image_is_equally_likely(
    database: Database, model: Model, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same if all images are read and if they are looked up."""
    for small in (1000, 10):
        monkeypatch.setattr(random_images, "_SMALL", small)
        with database.read() as connection:
            found = [one for seed in range(200) for one in sampling.random_ids(connection, model, 10, seed)]
        _assert_equally_likely(found, ids)


def _assert_equally_likely(found: list[Any], possible: list[Any]) -> None:
    """Chi-squared test, 4.5 standard deviations above the mean: exceeded by chance once in some thousand runs."""
    counts, mean, degrees = Counter(found), len(found) / len(possible), len(possible) - 1
    assert sum((counts[one] - mean) ** 2 / mean for one in possible) < degrees + 4.5 * (2 * degrees) ** 0.5


def test_sparse_ids_are_found(database: Database, model: Model, ids: list[int], looks_up: None) -> None:
    """Two images with distant ids are unlikely to be drawn by guessing ids."""
    _forget(database, ids[1:-1])
    with database.read() as connection:
        found = [sampling.random_ids(connection, model, 1, seed) for seed in range(30)]
        assert sorted(sampling.random_ids(connection, model, 5, 1)) == [ids[0], ids[-1]]
    assert {one for (one,) in found} == {ids[0], ids[-1]}


def test_images_are_loaded_in_the_order_of_their_ids_as_given(
    database: Database, model: Model, rows: Rows, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.sampling.pool.IMAGES_AT_ONCE", 7)
    with database.read() as connection:
        wanted = sampling.random_ids(connection, model, 30, 1)
        pool = sampling.load(connection, model, [*wanted, 999_999], 5000)
        nothing = sampling.load(connection, model, [], FLOOR)
    assert pool.image_ids == wanted
    by_uri = {f"s3://b/{number:03}": row for number, row in enumerate(rows)}
    for place, uri in enumerate(pool.uris):
        own = slice(pool.offsets[place], pool.offsets[place + 1])
        told = dict(zip(pool.tag_ids[own].tolist(), pool.scores[own].tolist(), strict=True))
        assert told == {tag: score for tag, score in by_uri[uri].items() if score >= 5000}
    assert pool.widths == [640] * 30
    assert (len(nothing), nothing.offsets.tolist()) == (0, [0])


# ── images with a tag ──


def in_range(rows: Rows, ids: list[int], tag: int, low: int, high: int) -> list[ScoredImage]:
    """By a loop. Images were registered one by one, from the first id on."""
    first = ids[0] - 1
    return [
        ScoredImage(one, f"s3://b/{one - first:03}", row[tag])
        for one in ids
        if tag in (row := rows[one - first]) and low <= row[tag] < high
    ]


def test_images_with_a_score_in_a_range(
    database: Database, model: Model, rows: Rows, ids: list[int], indexed: None, looks_up: None
) -> None:
    ranges = [(0, NEVER), (3500, NEVER), (FLOOR, 3500), (5000, 5000), (NEVER, NEVER)]
    for tag, (low, high) in product(range(1, 5), ranges):
        expected = in_range(rows, ids, tag, low, high)
        with database.read() as connection:
            some = sampling.with_tag(connection, model, tag, low, high, 5, 1)
            everything = sampling.with_tag(connection, model, tag, low, high, IMAGES, 1)
            assert sampling.with_tag(connection, model, tag, low, high, 5, 1) == some
        assert len(set(some)) == len(some) == min(5, len(expected))
        assert set(some) <= set(expected)
        assert sorted(everything, key=lambda one: one.image_id) == expected


def test_images_with_a_tag_are_equally_likely(
    database: Database, model: Model, rows: Rows, ids: list[int], looks_up: None
) -> None:
    """For a common tag, whose images are looked up, and for a rarer one, of which all are read."""
    for tag in (1, 2):
        with database.read() as connection:
            found = [
                one for seed in range(200) for one in sampling.with_tag(connection, model, tag, FLOOR, NEVER, 3, seed)
            ]
        _assert_equally_likely(found, in_range(rows, ids, tag, FLOOR, NEVER))


# ── near a threshold ──


def test_the_nearest_images_on_either_side(
    database: Database, model: Model, rows: Rows, ids: list[int], indexed: None
) -> None:
    with database.read() as connection:
        counted = count_scores(connection, model)
        lines = [FLOOR, 3500, 3505, 9990, SCALE]
        for tag, score, n, distribution in product(range(1, 5), lines, (1, 4, IMAGES), (None, counted)):
            above, below = sampling.around(connection, model, tag, score, n, distribution)
            assert above == nearest(in_range(rows, ids, tag, score, NEVER), score, n)
            assert below == nearest(in_range(rows, ids, tag, 0, score), score, n)


def nearest(found: list[ScoredImage], score: int, n: int) -> list[ScoredImage]:
    return sorted(found, key=lambda one: (abs(one.score - score), one.image_id))[:n]


@pytest.mark.parametrize("counted", [False, True])
def test_the_nearest_images_of_any_scores(database: Database, model: Model, counted: bool) -> None:
    uris = [f"s3://b/{number:03}" for number in range(8)]
    some = st.sampled_from([FLOOR, 3489, 3490, 3499, 3500, 3509, 3510, SCALE]) | st.integers(FLOOR, SCALE)

    @thoroughly
    @given(st.lists(some, min_size=8, max_size=8), st.integers(1, 3), some)
    def check(scores: list[int], n: int, score: int) -> None:
        ids = store(database, model, uris, [{1: one} for one in scores])
        found = [ScoredImage(*each) for each in zip(ids, uris, scores, strict=True)]
        with database.read() as connection:
            distribution = count_scores(connection, model) if counted else None
            above, below = sampling.around(connection, model, 1, score, n, distribution)
        assert above == nearest([one for one in found if one.score >= score], score, n)
        assert below == nearest([one for one in found if one.score < score], score, n)

    check()


def test_many_within_a_step_are_found_without_reading_all(database: Database, model: Model) -> None:
    """The first images within 0.001 of the threshold are taken, and sorted by their distance."""
    scores = [3500, 3499, 3509, 3490] * near_threshold._MANY * 3
    ids = store(database, model, [f"s3://b/{number:03}" for number in range(len(scores))], [{1: one} for one in scores])
    with database.read() as connection:
        above, below = sampling.around(connection, model, 1, 3500, 3, count_scores(connection, model))
    assert [(one.image_id, one.score) for one in above] == [(ids[0], 3500), (ids[4], 3500), (ids[2], 3509)]
    assert [(one.image_id, one.score) for one in below] == [(ids[1], 3499), (ids[5], 3499), (ids[3], 3490)]


def test_counts_that_are_too_old_do_not_hide_images(
    database: Database, model: Model, rows: Rows, ids: list[int]
) -> None:
    """The images that were near the threshold at the time of the count are gone."""
    with database.read() as connection:
        distribution = count_scores(connection, model)
    gone = [one.image_id for one in in_range(rows, ids, 1, 2500, 4500)]
    _forget(database, gone)
    left = [one for one in in_range(rows, ids, 1, 0, NEVER) if one.image_id not in gone]
    with database.read() as connection:
        above, below = sampling.around(connection, model, 1, 3500, 4, distribution)
    assert above == nearest([one for one in left if one.score >= 3500], 3500, 4)
    assert below == nearest([one for one in left if one.score < 3500], 3500, 4)


def test_a_model_without_predictions_has_no_samples(database: Database) -> None:
    model = make_model(database, "new")
    with database.read() as connection:
        assert sampling.random_ids(connection, model, 5, 1) == []
        assert sampling.with_tag(connection, model, 1, FLOOR, NEVER, 5, 1) == []
        assert sampling.around(connection, model, 1, 3500, 5) == ([], [])
