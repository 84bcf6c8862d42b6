"""`tagonce worker --devices`: a process for each device, and a supervisor."""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.e2e.ledger import Ledger
from tests.fixtures.command import Outcome, Process, wait_until
from tests.fixtures.servers import RedisServer

PHOTOS = 32


def children(parent: Process) -> list[psutil.Process]:
    """Those that run, in the order of their start, as its log names them."""
    started = map(int, re.findall(r"the worker on cpu is process (\d+)", parent.words()))
    return [psutil.Process(number) for number in started if psutil.pid_exists(number)]


def test_both_work_a_dead_one_comes_back_and_sigterm_ends_all(
    tagonce: Callable[..., Outcome],
    start_tagonce: Callable[..., Process],
    make_photos: Callable[..., list[Path]],
    jtp2_folder: Path,
    redis_server: RedisServer,
    sqlite_url: str,
) -> None:
    """A dead one that cannot start, because Redis does not answer, is started again until it can."""
    settings = {"TAGONCE_BROKER_URL": redis_server.url, "TAGONCE_DATABASE_URL": sqlite_url}
    rows = Ledger(sqlite_url)
    parent = start_tagonce("worker", "--devices", "cpu,cpu", "--model", jtp2_folder, **settings)
    wait_until(lambda: parent.words().count("batches of") == 2 or parent.popen.poll() is not None)
    pair = children(parent)

    for asleep in pair:
        before = rows.count()
        asleep.suspend()  # so that the other one has to work
        make_photos(before + PHOTOS)
        sent = tagonce("enqueue", "photos", "--model", jtp2_folder.name, "--chunk-size", "4", **settings)
        assert sent.code == 0, sent.err
        wait_until(lambda: rows.count() > before)  # noqa: B023 - it is awaited here
        asleep.resume()
        wait_until(lambda: rows.count() == before + PHOTOS)  # noqa: B023 - it is awaited here

    killed, other = pair
    redis_server.kill()
    killed.kill()
    parent.wait_for("the worker on cpu exited with code -9 and is restarted")
    parent.wait_for("the worker on cpu exited with code 1 and is restarted")
    redis_server.start()
    wait_until(lambda: parent.words().count("batches of") == 3 or parent.popen.poll() is not None)

    ours = children(parent)
    assert len(ours) == 2
    assert other in ours
    parent.signal(signal.SIGTERM)
    assert parent.wait() == 0, parent.words()
    assert psutil.wait_procs(ours, timeout=0)[1] == []


def test_one_that_cannot_work_ends_all_with_its_sentence(
    start_tagonce: Callable[..., Process], jtp2_folder: Path, redis_url: str, sqlite_url: str
) -> None:
    parent = start_tagonce(
        *("worker", "--devices", "cpu,tpu", "--model", jtp2_folder),
        TAGONCE_BROKER_URL=redis_url,
        TAGONCE_DATABASE_URL=sqlite_url,
    )
    assert parent.wait() == 2, parent.words()
    assert "error: The device 'tpu' (TAGONCE_DEVICE, --device) cannot be used here" in parent.words()
    assert "Traceback" not in parent.words()
