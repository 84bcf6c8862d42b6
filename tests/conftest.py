"""Fixtures of all tiers. Services are real and come from wheels; one that does not start fails the test.

So does one that is not installed, and it fails no other: what only some tests need is imported in the fixture that
starts it, so that `pytest tests/unit/test_infer.py` runs on a GPU machine that has `tagonce[worker]` and pytest.
"""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fixtures import examples, forked

# pytest has a process for each core. The threads of torch would be twice as many as cores, and each waits for the rest
# by spinning: a forward takes up to ten times as long. The processes that tests start inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = [
    "tests.fixtures.browser",
    "tests.fixtures.checkpoints",
    "tests.fixtures.command",
    "tests.fixtures.migrated",
    "tests.fixtures.photos",
    "tests.fixtures.pages",
    "tests.fixtures.pooler",
    "tests.fixtures.review",
    "tests.fixtures.s3",
    "tests.fixtures.servers",
    "tests.fixtures.tls",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="more examples of hypothesis, and screenshots of the page")


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # until all is imported, of which nothing is garbage
    if "PYTEST_XDIST_WORKER" in os.environ:
        forked.shared = Path(config.option.basetemp).parent
    with suppress(ModuleNotFoundError):
        examples.load(thorough=config.getoption("thorough"))


def pytest_collection_finish() -> None:
    """Garbage is searched for among what the tests make, and not again and again among all modules."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # what is frozen at the end of a process, nanobind reports as leaked


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches them."""
    for name in list(os.environ):
        if name.startswith(("TAGONCE_", "AWS_", "HF_", "PG")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def pillows_own_limit() -> Iterator[None]:
    """Pillow's limit of pixels is one of the process: each `Opener` sets it, and would leave it to the next test."""
    yield
    if image := sys.modules.get("PIL.Image"):
        image.MAX_IMAGE_PIXELS = 1024**3 // 4 // 3  # as `PIL.Image` sets it
