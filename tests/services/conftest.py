"""Rows to start from: a stored model, and registered images."""

from collections.abc import Callable

import pytest

from db import images, models
from db.database import Database
from db.images import Reference
from db.models import Model, Tag

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
    """One stored model, floor 0.01."""
    return make_model(database)


@pytest.fixture
def other_model(database: Database, model: Model) -> Model:
    """A second one in the same database."""
    return make_model(database, "other", floor=0)


@pytest.fixture
def registered(database: Database, model: Model) -> Callable[..., list[int]]:
    """Register so many images, `s3://b/0000` and on, of a version; gives the ids of those pending for `model`."""

    def register(number: int, version: str = "1") -> list[int]:
        found = [Reference(f"s3://b/{position:04}", version, 10) for position in range(number)]
        with database.write() as connection:
            return images.register(connection, found, model.id)

    return register
