"""The folder that thumbnails are kept in. Threads and processes share it; whatever is in it can be made anew."""

import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from db.errors import SettingsError, StopError
from tagonce.whole_files import whole_path

_OURS = re.compile(r"[0-9a-f]{62}\.webp|\.tagonce-.*")
"""Thumbnails, and what a process that was killed left of one. Nothing else in the folder is ever deleted."""
_SHARD = re.compile(r"[0-9a-f]{2}")

_COUNTED_AFTER = 1 / 16
"""Of the limit: what is written until all is counted again. By so much, for each process, it may be exceeded."""
_FILLED_TO = 0.9
"""Of the limit, after the least recently used are deleted."""
_USED_SECONDS = 3600.0
"""So exact is the time at which a thumbnail was last used: writing it for each look would cost more than the look."""

log = logging.getLogger(__name__)


class _File(NamedTuple):
    used_at: float
    """By the system's clock: the time of its last change."""
    bytes: int
    path: str


class ThumbnailFiles:
    """WebP files by name, of which the least recently used are deleted when they are too many.

    Args:
        folder: made where it is missing, for nobody else to look into.
        max_bytes: of all files together.

    Raises:
        SettingsError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        _look_at(folder)
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._uncounted = max_bytes  # what other processes have left there
        self._complained = False

    def read(self, name: str) -> bytes | None:
        """What was kept under this name; None where nothing whole was.

        Args:
            name: 64 hexadecimal digits.
        """
        path = self._path(name)
        try:
            content = path.read_bytes()
            if not _is_whole(content):
                return None
            if time.time() - path.stat().st_mtime > _USED_SECONDS:
                os.utime(path)
        except OSError:
            return None
        return content

    def write(self, name: str, content: bytes) -> None:
        """Keep it; where that fails, say so once and do without."""
        try:
            with whole_path(self._path(name)) as temporary:
                temporary.write_bytes(content)
            with self._lock:
                self._uncounted += len(content)
                if self._uncounted > _COUNTED_AFTER * self._max_bytes:
                    self._uncounted = 0
                    self._make_room()
        except (StopError, OSError) as error:
            if not self._complained:
                log.warning("thumbnails cannot be kept in %s: %s", self._folder, error.__cause__ or error)
            self._complained = True

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / f"{name[2:]}.webp"

    def _make_room(self) -> None:
        files = sorted(self._files())
        too_many = sum(file.bytes for file in files) - self._max_bytes
        if too_many <= 0:
            return
        too_many += round((1 - _FILLED_TO) * self._max_bytes)
        for file in files:
            if too_many <= 0:
                break
            Path(file.path).unlink(missing_ok=True)
            too_many -= file.bytes

    def _files(self) -> Iterator[_File]:
        with os.scandir(self._folder) as shards:
            folders = [shard.path for shard in shards if _SHARD.fullmatch(shard.name)]
        for folder in folders:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not _OURS.fullmatch(entry.name):
                        continue
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:  # another process makes room as well, or has finished a file
                        continue
                    yield _File(status.st_mtime, status.st_size, entry.path)


def _look_at(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(
            f"Thumbnails cannot be kept in {folder}: {error.strerror}. TAGONCE_THUMBNAILS names another folder."
        ) from error


def _is_whole(content: bytes) -> bool:
    """By the number of bytes that a WebP says it has: https://developers.google.com/speed/webp/docs/riff_container."""
    return content[:4] == b"RIFF" and int.from_bytes(content[4:8], "little") == len(content) - 8
