"""Files that are complete or not touched: written under a temporary name, then renamed."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from db.errors import SettingsError, StopError


@contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """A text file, complete if the block ends without an error, and not touched otherwise.

    Raises:
        StopError: the folder cannot be created or written to, or the disk is full.
    """
    with whole_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        yield file


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """The same for code that writes the file itself: the block gets the path of an empty file, which is then renamed.

    Permissions are those of the file that it replaces, else those of the umask.

    Raises:
        StopError: see `whole_file`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tagonce-{secrets.token_hex(8)}")
        # By open(2), not tempfile, whose files only the owner can read: the umask is readable only by setting it, for
        # all threads.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield temporary
        if path.is_file():
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _cannot_write(path, error) from error
        raise


def _cannot_write(path: Path, error: OSError) -> StopError:
    # pyarrow adds its own text to that of the system.
    reason = os.strerror(error.errno) if error.errno else error
    return StopError(f"Cannot write {path}: {reason}. --out names another place.")


def refuse_foreign(path: Path, mark: bytes) -> None:
    """For plots and tables, which have no record: only a file with the mark of tagonce may be overwritten.

    Args:
        path: the file to write.
        mark: bytes in the first 4 KiB of every such file.

    Raises:
        SettingsError: a file without the mark exists.
    """
    if not os.path.lexists(path):
        return
    try:
        with path.open("rb") as file:
            ours = mark in file.read(4096)
    except OSError:
        ours = False
    if not ours:
        raise SettingsError(f"{path} exists, and tagonce did not write it: name another file.")
