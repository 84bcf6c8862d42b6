"""References to local files: a single file, or all images below a folder."""

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from db.ledger.images import Reference
from db.names.folders import files_below
from db.names.uris import file_uri
from producer.sources.name_filter import NameFilter

COUNTED = 20_000
"""Entries of excluded folders that are read to count their images. The limit is for snapshots, which may be a copy of
everything."""

logger = logging.getLogger(__name__)


def local_reference(path: str) -> Reference:
    """A reference to the file at an absolute path; without a version if it is not a readable regular file."""
    try:
        facts = os.stat(path)  # noqa: PTH116 -- paths are strings here: Path is slow by the million
    except OSError:
        return Reference(file_uri(path), "", None)
    return _reference(path, facts)


def _reference(path: str, facts: os.stat_result) -> Reference:
    if not stat.S_ISREG(facts.st_mode):
        return Reference(file_uri(path), "", None)
    return Reference(file_uri(path), f"{facts.st_size}-{facts.st_mtime_ns}", facts.st_size)


def in_folder(root: str, names: NameFilter) -> Iterator[Reference]:
    """Every image below an absolute path, in the order of the file system.

    Links are followed; the reference has the name of the link.

    Raises:
        SourceError: the root cannot be read, or has no image below it.
    """
    found, other = 0, -names.passed_over
    for entry in _Walk(root, names).files():
        try:
            reference = _reference(entry.path, entry.stat())
        except OSError as error:  # a broken link, or a file deleted since the folder was listed
            logger.warning("skipped %r: %s", entry.path, error.strerror)
            continue
        if reference.version:
            found += 1
            yield reference
        else:  # reading a pipe or device with the name of an image would block
            logger.warning("skipped %r: not a regular file", entry.path)
            other += 1
    if not found:
        raise names.nothing_in(root, f"{other + names.passed_over} other files seen")


class _Walk:
    """Walks a folder and those below it, and counts the names that are not taken."""

    def __init__(self, root: str, names: NameFilter) -> None:
        self._root = root
        self._names = names
        self._start = len(os.path.join(root, ""))  # noqa: PTH118 -- see local_reference
        self._left_to_count = COUNTED

    def files(self) -> Iterator[os.DirEntry[str]]:
        return files_below(self._root, self._wanted)

    def _wanted(self, entry: os.DirEntry[str], is_folder: bool) -> bool:
        path = entry.path[self._start :]
        if not is_folder:
            return self._names.take(path)
        if self._names.enter(path):
            return True
        self._count(entry)
        return False

    def _count(self, folder: os.DirEntry[str]) -> None:
        """Count the images in an excluded folder, up to `COUNTED` entries. Links are not followed."""
        waiting = [] if folder.is_symlink() else [folder.path]
        while waiting:
            with suppress(OSError), os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if not self._left_to_count:
                        self._names.more_hidden = True
                        return
                    self._left_to_count -= 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        self._names.take(entry.path[self._start :])
