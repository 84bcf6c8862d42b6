"""An image has a prediction or a failure, never both, however often and by however many workers it is written."""

import multiprocessing
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, select

from db.database import Database, open_database
from db.errors import Reason
from db.ledger import deliveries as delivery_counts
from db.ledger import images, models, results, run_progress
from db.ledger.models import Model
from db.ledger.results import Failure, Prediction
from db.schema import deliveries, failures, files, predictions, tag_scores
from db.schema import images as image_table
from db.schema import models as model_table
from db.scores import Scores
from tests.fixtures.examples import up_to
from tests.fixtures.scores import NO_SCORES

Register = Callable[..., list[int]]
InThreads = Callable[[int, Callable[[int, threading.Barrier], None]], None]


def scores(*pairs: tuple[int, int]) -> Scores:
    """Scores from (tag id, score), in the order of workers."""
    ordered = sorted(pairs, key=lambda pair: (pair[1], pair[0]))
    return Scores(np.array([tag for tag, _ in ordered], np.int16), np.array([score for _, score in ordered], np.int16))


def prediction(image_id: int, kept: Scores = NO_SCORES, version: str = "1") -> Prediction:
    return Prediction(image_id, version, 10, 640, 480, "jpeg", b"h" * 32, kept)


def failure(image_id: int, version: str = "1", detail: str = "no", reason: Reason = Reason.CORRUPT) -> Failure:
    return Failure(image_id, version, reason, detail)


def save(database: Database, model: Model, done: Sequence[Prediction] = (), failed: Sequence[Failure] = ()) -> None:
    with database.write() as connection:
        results.save(connection, model.id, done, failed)


def stored_scores(connection: Connection) -> set[tuple[int, int, int]]:
    rows = connection.execute(select(tag_scores.c.image_id, tag_scores.c.tag_id, tag_scores.c.score)).all()
    assert len(set(rows)) == len(rows)
    return {(row.image_id, row.tag_id, row.score) for row in rows}


def predicted(connection: Connection) -> list[tuple[int, str]]:
    rows = connection.execute(select(predictions).order_by(predictions.c.image_id))
    return [(row.image_id, row.image_version) for row in rows]


def failed(connection: Connection) -> list[tuple[int, str, int]]:
    rows = connection.execute(select(failures).order_by(failures.c.image_id))
    return [(row.image_id, row.image_version, row.attempts) for row in rows]


# ── once, twice, and instead of each other ──


def test_saving_twice_is_saving_once(database: Database, model: Model, registered: Register) -> None:
    """An image without a tag at or above the floor is done like any other."""
    first, second = registered(2)
    for _ in range(2):
        save(database, model, [prediction(second), prediction(first, scores((3, 500), (1, 9000)))])
    with database.read() as connection:
        assert predicted(connection) == [(first, "1"), (second, "1")]
        assert stored_scores(connection) == {(first, 3, 500), (first, 1, 9000)}


def test_a_second_result_leaves_no_tag_of_the_first(database: Database, model: Model, registered: Register) -> None:
    one, other = registered(2)
    save(database, model, [prediction(one, scores((0, 100), (1, 200), (2, 300))), prediction(other, scores((7, 700)))])
    save(database, model, [prediction(one, scores((1, 250)))])
    with database.read() as connection:
        assert stored_scores(connection) == {(one, 1, 250), (other, 7, 700)}


def test_saving_nothing_is_nothing(database: Database, model: Model) -> None:
    save(database, model)
    with database.read() as connection:
        assert predicted(connection) == failed(connection) == []


def test_a_prediction_removes_the_failure(database: Database, model: Model, registered: Register) -> None:
    one, other = registered(2)
    save(database, model, failed=[failure(one), failure(other)])
    save(database, model, [prediction(one)])
    with database.read() as connection:
        assert (predicted(connection), failed(connection)) == ([(one, "1")], [(other, "1", 1)])


def test_a_failure_after_a_prediction_of_the_same_version_is_ignored(
    database: Database, model: Model, registered: Register
) -> None:
    """Two workers had the chunk, and only one of them failed."""
    (one,) = registered(1)
    save(database, model, [prediction(one, scores((1, 200)))])
    save(database, model, failed=[failure(one)])
    with database.read() as connection:
        assert (predicted(connection), failed(connection)) == ([(one, "1")], [])
        assert stored_scores(connection) == {(one, 1, 200)}


def test_a_failure_of_a_newer_version_removes_the_prediction_and_its_scores(
    database: Database, model: Model, other_model: Model, registered: Register
) -> None:
    """Only those of this model."""
    (one,) = registered(1)
    for each in (model, other_model):
        save(database, each, [prediction(one, scores((1, 200)))])
    registered(1, version="2")
    save(database, model, failed=[failure(one, "2")])
    with database.read() as connection:
        assert failed(connection) == [(one, "2", 1)]
        left = connection.execute(select(tag_scores.c.model_id)).scalars().all()
        assert list(left) == list(connection.scalars(select(predictions.c.model_id))) == [other_model.id]


def test_a_result_of_an_older_version_leaves_the_facts_of_the_image_alone(
    database: Database, model: Model, registered: Register
) -> None:
    """The file changed while a worker had it, so the image is still pending."""
    (one,) = registered(1)
    registered(1, version="2")
    save(database, model, [prediction(one, version="1")])
    with database.read() as connection:
        assert connection.execute(select(files)).all() == []
        assert images.pending_after(connection, model.id, 0, 9) == [one]


def test_attempts_count_up_and_the_last_reason_stands(database: Database, model: Model, registered: Register) -> None:
    (one,) = registered(1)
    for reason in (Reason.TIMEOUT, Reason.TIMEOUT, Reason.MISSING):
        save(database, model, failed=[failure(one, reason=reason)])
    with database.read() as connection:
        assert failed(connection) == [(one, "1", 3)]
        assert run_progress.failures_by_reason(connection, model.id) == {Reason.MISSING: 1}


@pytest.mark.parametrize("detail", ["a\0b\0", "", "日本語 🐈 'quoted' %s :x", "x" * 10_000])
def test_the_detail_of_a_failure_may_be_any_text(
    database: Database, model: Model, registered: Register, detail: str
) -> None:
    (one,) = registered(1)
    save(database, model, failed=[failure(one, detail=detail)])
    with database.read() as connection:
        assert connection.execute(select(failures.c.detail)).scalar_one() == detail.replace("\0", "")


def test_clearing_failures_makes_them_pending(database: Database, model: Model, registered: Register) -> None:
    ids = registered(3)
    reasons = (Reason.TIMEOUT, Reason.TIMEOUT, Reason.MISSING)
    save(database, model, failed=[failure(one, reason=reason) for one, reason in zip(ids, reasons, strict=True)])
    with database.write() as connection:
        assert run_progress.failures_by_reason(connection, model.id) == {Reason.TIMEOUT: 2, Reason.MISSING: 1}
        assert results.clear_failures(connection, model.id, Reason.TIMEOUT) == ids[:2]
        assert images.pending_after(connection, model.id, 0, 9) == ids[:2]
        assert results.clear_failures(connection, model.id) == ids[2:]
        assert images.count_pending(connection, model.id) == 3


def test_a_late_result_of_an_older_file_changes_nothing(database: Database, model: Model, registered: Register) -> None:
    """The file was registered again, and predicted again or not, while a worker still processed the old one."""
    one, two = registered(2)
    assert registered(2, version="2") == [one, two]
    save(database, model, [prediction(one, scores((3, 500)), version="2")])
    save(database, model, [prediction(two, scores((4, 600)))], [failure(one)])
    with database.read() as connection:
        assert predicted(connection) == [(one, "2")]
        assert stored_scores(connection) == {(one, 3, 500)}
        assert run_progress.failures_by_reason(connection, model.id) == {}
        assert images.pending_after(connection, model.id, 0, 9) == [two]


def test_progress_speaks_of_the_files_as_they_are_now(database: Database, model: Model, registered: Register) -> None:
    """An image with a new version is pending, neither done nor failed."""
    one, two = registered(2)
    save(database, model, [prediction(one)], [failure(two)])
    registered(2, version="2")
    with database.read() as connection:
        found = run_progress.progress(connection, model.id)
    assert (found.done, found.failed, found.pending) == (0, {}, 2)


def test_progress_adds_up(database: Database, model: Model, other_model: Model, registered: Register) -> None:
    ids = registered(5)
    save(database, model, [prediction(one) for one in ids[:2]], [failure(ids[2])])
    with database.read() as connection:
        found = run_progress.progress(connection, model.id)
        assert (found.images, found.done, found.failed, found.pending) == (5, 2, {Reason.CORRUPT: 1}, 2)
        assert found.rate == 2.0
        assert found.seconds_left == 1.0
        untouched = run_progress.progress(connection, other_model.id)
        assert (untouched.pending, untouched.rate, untouched.seconds_left) == (5, 0.0, None)


# ── deletion of dependent rows ──


@pytest.mark.parametrize("what", ["image", "model"])
def test_deleting_takes_predictions_scores_and_failures_along(
    database: Database, model: Model, other_model: Model, registered: Register, what: str
) -> None:
    one, other = registered(2)
    for each in (model, other_model):
        save(database, each, [prediction(one, scores((1, 200)))], [failure(other)])
    with database.write() as connection:
        if what == "image":
            connection.execute(delete(image_table))
            left = []
        else:
            connection.execute(delete(model_table).where(model_table.c.id == model.id))
            left = [other_model.id]
        for table in (predictions, failures, tag_scores):
            assert list(connection.scalars(select(table.c.model_id))) == left


# ── PostgreSQL's packed rows ──

smallints = st.integers(-(2**15), 2**15 - 1)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_packed_arrays_come_back_as_they_went(database: Database, model: Model, registered: Register) -> None:
    """Any length and any smallint. They are written in binary format, and read in binary and text format."""
    (one,) = registered(1)
    columns = (predictions.c.tag_ids, predictions.c.scores)

    @hypothesis_settings(suppress_health_check=[HealthCheck.differing_executors], max_examples=up_to(50), deadline=None)
    @given(st.lists(smallints, max_size=300), st.data())
    def check(values: list[int], data: st.DataObject) -> None:
        array = np.array(values, np.int16)
        save(database, model, [prediction(one, Scores(array, array[::-1].copy()))])
        with database.read() as connection:
            for row in (
                connection.execute(select(*columns)).one(),
                connection.connection.driver_connection.cursor(binary=True)
                .execute("select tag_ids, scores from predictions")
                .fetchone(),
            ):
                for found, wanted in zip(row, (array, array[::-1]), strict=True):
                    assert found.dtype == np.int16
                    assert found.tolist() == wanted.tolist()

    check()


# ── concurrency ──


def test_workers_with_overlapping_chunks_end_with_one_row_each(
    database: Database, model: Model, registered: Register, in_threads: InThreads
) -> None:
    """Four threads, each with its own order of images. Some images fail in some of the threads."""
    ids = registered(60)

    def worker(seed: int, _barrier: threading.Barrier) -> None:
        chance = random.Random(seed)
        for _ in range(5):
            chunk = chance.sample(ids, 40)
            broken = [failure(one) for one in chunk if chance.random() < 0.2]
            fine = [prediction(one, scores((one % 7, 500), (9, 700))) for one in chunk if chance.random() < 0.7]
            fine = [one for one in fine if one.image_id not in {other.image_id for other in broken}]
            save(database, model, fine, broken)

    in_threads(4, worker)
    save(database, model, [prediction(one, scores((one % 7, 500), (9, 700))) for one in ids])
    with database.read() as connection:
        assert predicted(connection) == [(one, "1") for one in ids]
        assert failed(connection) == []
        assert stored_scores(connection) == {pair for one in ids for pair in ((one, one % 7, 500), (one, 9, 700))}


def test_of_two_workers_with_different_luck_exactly_one_result_stays(
    database: Database, model: Model, registered: Register, in_threads: InThreads
) -> None:
    """Each worker predicts the half of the chunk on which the other one fails, at the same moment, ten times."""
    ids = registered(40)

    def worker(number: int, barrier: threading.Barrier) -> None:
        for turn in range(10):
            barrier.wait(30)
            if number == 0:
                registered(40, version=str(turn))
            barrier.wait(30)
            done = [prediction(one, version=str(turn)) for one in ids[number::2]]
            broken = [failure(one, version=str(turn)) for one in ids[1 - number :: 2]]
            save(database, model, done, broken)
            barrier.wait(30)
            with database.read() as connection:
                assert images.count_pending(connection, model.id) == 0
                assert {one for one, _ in predicted(connection)} & {one for one, _, _ in failed(connection)} == set()

    in_threads(2, worker)


def _save_in_a_process(url: str, ids: list[int], first: int) -> None:
    database = open_database(url)
    for start in range(first, first + 5):
        save(database, _model_of(database), [prediction(one, scores((start % 3, 400))) for one in ids[start::5]])
    database.close()


def _model_of(database: Database) -> Model:
    with database.read() as connection:
        return models.latest(connection)


def test_processes_write_to_one_database(
    database: Database, database_url: str, model: Model, registered: Register
) -> None:
    """SQLite has one writer at a time. The others wait, and none is refused."""
    ids = registered(100)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(_save_in_a_process, database_url, ids, first) for first in range(2)]:
            future.result()
    with database.read() as connection:
        assert predicted(connection) == [(one, "1") for one in ids]
        assert len(stored_scores(connection)) == 100


# ── deliveries ──


def test_deliveries_are_counted_for_each_chunk(database: Database) -> None:
    with database.write() as connection:
        assert [delivery_counts.count(connection, "a") for _ in range(3)] == [1, 2, 3]
        assert delivery_counts.count(connection, "b") == 1
        delivery_counts.forget(connection, "a")
        delivery_counts.forget(connection, "never seen")
        assert delivery_counts.count(connection, "a") == 1
        assert sorted(connection.execute(select(deliveries)).all()) == [("a", 1), ("b", 1)]
