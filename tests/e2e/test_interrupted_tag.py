"""`tagonce tag` that ends half-way: nothing is left running, nothing is lost, and the same command goes on."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from producer.references import file_uri
from tests.fixtures.command import Outcome, Process, wait_until

PHOTOS = 120
ORIGINALS = 4
SETTINGS = {"TAGONCE_CHUNK_SIZE": "4", "TAGONCE_CONCURRENCY": "1", "TAGONCE_LOADERS": "1"}
"""Little at a time, so that half-way is a place."""


@pytest.fixture
def photos(tmp_path: Path, make_photos: Callable[..., list[Path]]) -> list[Path]:
    """Large ones, which take a moment each: a few files under many names."""
    originals = make_photos(ORIGINALS, tmp_path / "originals", size=(2400, 1800))
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = [folder / f"{number:04}.jpg" for number in range(PHOTOS)]
    for number, path in enumerate(paths):
        path.hardlink_to(originals[number % ORIGINALS])
    return paths


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_leaves_no_process_and_the_same_command_finishes(
    tagonce: Callable[..., Outcome],
    start_tagonce: Callable[..., Process],
    photos: list[Path],
    jtp2_folder: Path,
    sqlite_url: str,
    ledger: Callable[[str], Any],
    number: signal.Signals,
) -> None:
    """kill -9 of the command takes its worker and its Redis along. Ctrl-C ends with 130 and says what was done."""
    command = ("tag", "photos", "--model", jtp2_folder, "--database", sqlite_url)
    rows = ledger(sqlite_url)
    run = start_tagonce(*command, **SETTINGS)
    wait_until(lambda: rows.count() >= PHOTOS // 10)
    family = psutil.Process(run.popen.pid).children(recursive=True)
    assert len(family) >= 2, "a worker and a Redis"
    run.signal(number)
    assert run.wait() == (130 if number is signal.SIGINT else -signal.SIGKILL)
    _gone, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    done = rows.count()
    assert 0 < done < PHOTOS
    if number is signal.SIGINT:
        assert "Nothing is lost: the same command goes on from here." in run.words()
        assert f"{done} images were done" in run.words()
        assert "Traceback" not in run.words()

    finished = tagonce(*command)
    assert finished.code == 0, finished.err
    assert f"{PHOTOS - done} images tagged" in finished.err
    assert f"{done} were done before" in finished.err
    assert rows.finished() == [file_uri(str(photo)) for photo in photos]
