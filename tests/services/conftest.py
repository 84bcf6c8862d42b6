"""Fixtures of this folder: stored models, registered images, and a helper that runs a function in several threads."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from db.database import Database
from db.ledger import images, models
from db.ledger.images import Reference
from db.ledger.models import Model, Tag
from tests.fixtures.command import Outcome

TAGS = tuple(Tag(f"tag_{number:02}", "general" if number % 2 else None) for number in range(20))


def make_model(database: Database, name: str = "tiny", *, floor: int = 100) -> Model:
    """A model of 20 tags whose default threshold is 0.35."""
    with database.write() as connection:
        return models.register(
            connection,
            name=name,
            weights_sha256=name * 2,
            spec={"size": 384},
            tag_list=TAGS,
            floor=floor,
            default_threshold=3500,
        )


@pytest.fixture
def model(database: Database) -> Model:
    """A stored model with floor 0.01."""
    return make_model(database)


@pytest.fixture
def other_model(database: Database, model: Model) -> Model:
    """A second model in the same database."""
    return make_model(database, "other", floor=0)


@pytest.fixture
def registered(database: Database, model: Model) -> Callable[..., list[int]]:
    """Registers a number of images of a version, `s3://b/0000` and on; returns the ids that are pending for `model`."""

    def register(number: int, version: str = "1") -> list[int]:
        found = [Reference(f"s3://b/{position:04}", version, 10) for position in range(number)]
        with database.write() as connection:
            return images.register(connection, found, model.id)

    return register


@pytest.fixture
def in_threads() -> Callable[[int, Callable[[int, threading.Barrier], None]], None]:
    """Run a function in several threads at once. It gets its number and a barrier that synchronises the threads.

    If one fails, the others do not wait for it, and its error is raised.
    """

    def start(number: int, work: Callable[[int, threading.Barrier], None]) -> None:
        barrier = threading.Barrier(number)

        def run(position: int) -> None:
            try:
                work(position, barrier)
            except BaseException:
                barrier.abort()
                raise

        with ThreadPoolExecutor(number) as pool:
            errors = [future.exception() for future in [pool.submit(run, each) for each in range(number)]]
        for error in errors:
            if error and not isinstance(error, threading.BrokenBarrierError):
                raise error

    return start


@pytest.fixture
def doctor(invoke: Callable[..., Outcome]) -> Callable[..., list[dict[str, str]]]:
    """The findings of `tagonce doctor --json`. Asserts that the exit code is that of the worst finding."""

    def look(*arguments: str | Path, **environment: str) -> list[dict[str, str]]:
        done = invoke("doctor", "--json", "--device", "cpu", *arguments, **environment)
        found: list[dict[str, str]] = done.json
        assert done.code == any(one["status"] == "failed" for one in found), done
        assert {"check", "status", "message", "advice"} == set(found[0])
        return found

    return look
