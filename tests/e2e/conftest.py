"""Fixtures of the end-to-end tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tagonce import from_settings, settings
from tests.e2e import forked
from tests.e2e.forked import Workers


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    """Starts `tagonce worker` processes; see `tests.e2e.forked`."""
    with forked.workers(tmp_path) as started:
        yield started


@pytest.fixture
def stored(tmp_path: Path, jtp2_folder: Path) -> Path:
    """The database file that commands use when nobody names one; it knows a model with a floor of 0.05."""
    file = tmp_path / "tagonce.db"
    config = settings.load(database_url=f"sqlite:///{file}", model=str(jtp2_folder), floor=0.05)
    with from_settings.stored(config, create=True) as database:
        from_settings.find_and_register(database, config)
    return file
