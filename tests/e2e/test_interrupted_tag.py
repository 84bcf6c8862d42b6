"""`tagonce tag` that ends half-way: nothing is left running, nothing is lost, and the same command goes on."""

import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from db.names.uris import file_uri
from tests.e2e.ledger import Ledger
from tests.fixtures.command import Outcome, Process, wait_until

PHOTOS = 160
STEP = 12
ORIGINALS = 4
SETTINGS = {"TAGONCE_CHUNK_SIZE": "4", "TAGONCE_CONCURRENCY": "1", "TAGONCE_DECODERS": "1"}
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


def test_an_interrupted_run_leaves_no_process_and_the_same_command_finishes(
    tagonce: Callable[..., Outcome],
    start_script: Callable[..., Process],
    photos: list[Path],
    jtp2_folder: Path,
    sqlite_url: str,
) -> None:
    """SIGKILL of the command takes its worker and its Redis along. Ctrl-C ends with 130 and says what was done."""
    command = ("tag", "photos", "--model", jtp2_folder, "--database", sqlite_url)
    rows = Ledger(sqlite_url)

    killed = start_script(*command, **SETTINGS)
    wait_until(lambda: rows.count() >= STEP)
    assert interrupted(killed, signal.SIGKILL) == -signal.SIGKILL
    before = rows.count()
    assert 0 < before < PHOTOS

    stopped = start_script(*command, **SETTINGS)
    wait_until(lambda: rows.count() >= before + STEP)
    assert interrupted(stopped, signal.SIGINT) == 130
    done = rows.count()
    assert before < done < PHOTOS
    assert f"{done - before} images done. Nothing is lost: run the same command to resume" in stopped.words()
    assert "Traceback" not in stopped.words()

    finished = tagonce(*command)
    assert finished.code == 0, finished.err
    assert f"{PHOTOS - done} images tagged" in finished.err
    assert f"{done} already had a result" in finished.err
    assert rows.finished() == [file_uri(str(photo)) for photo in photos]


def interrupted(run: Process, number: signal.Signals) -> int:
    """Its exit code, when all that it started has ended too."""
    family = psutil.Process(run.popen.pid).children(recursive=True)
    assert len(family) >= 2, "a worker and a Redis"
    run.signal(number)
    code = run.wait()
    _gone, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    return code
