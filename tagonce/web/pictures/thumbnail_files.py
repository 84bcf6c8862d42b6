"""The folder that caches thumbnails. Threads and processes share it; every file in it can be created again."""

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
"""Names of thumbnails, and of temporary files that a killed process left. No other file is ever deleted."""
_SHARD = re.compile(r"[0-9a-f]{2}")

_COUNTED_AFTER = 1 / 16
"""Share of the limit that is written between two counts. Each process may exceed the limit by so much."""
_FILLED_TO = 0.9
"""Share of the limit that remains after the least recently used files are deleted."""
_USED_SECONDS = 3600.0
"""Precision of the time of last use, in seconds: writing it at each use would cost more than the use."""

log = logging.getLogger(__name__)


class _File(NamedTuple):
    used_at: float
    """Modification time of the file, by the system's clock."""
    bytes: int
    path: str


class ThumbnailFiles:
    """WebP files by name. The least recently used are deleted when the limit is exceeded.

    Args:
        folder: created if missing, readable for this user only.
        max_bytes: limit of all files together.

    Raises:
        SettingsError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        _look_at(folder)
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._uncounted = max_bytes  # files of other processes
        self._complained = False

    def read(self, name: str) -> bytes | None:
        """The file of this name; None if there is none, or it is incomplete.

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
        """Store a file. If that fails, log it once and continue without."""
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
                    except FileNotFoundError:  # another process deletes files too, or has finished one
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
    """Compares the size with the one in the header: https://developers.google.com/speed/webp/docs/riff_container."""
    return content[:4] == b"RIFF" and int.from_bytes(content[4:8], "little") == len(content) - 8
