"""References to local files: one of them, or all images below a folder."""

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from db.names.folders import files_below
from producer.references import Reference, file_uri
from producer.sources.name_filter import Names

COUNTED = 20_000
"""Entries of folders that are left out which are looked at to count them: a snapshot may hold everything once more."""

logger = logging.getLogger(__name__)


def local_reference(path: str) -> Reference:
    """The file at an absolute path. What is no readable file gives a reference without a version."""
    try:
        facts = os.stat(path)  # noqa: PTH116 -- paths are strings here: Path is slow by the million
    except OSError:
        return Reference(file_uri(path), "", None)
    return _reference(path, facts)


def _reference(path: str, facts: os.stat_result) -> Reference:
    if not stat.S_ISREG(facts.st_mode):
        return Reference(file_uri(path), "", None)
    return Reference(file_uri(path), f"{facts.st_size}-{facts.st_mtime_ns}", facts.st_size)


def in_folder(root: str, names: Names) -> Iterator[Reference]:
    """Every image below an absolute path, in the order the file system gives them.

    Links are followed and keep their own name.
    Raises SourceError when the root cannot be read, or when there is no image in it.
    """
    found, other = 0, -names.passed_over
    for entry in _Walk(root, names).files():
        try:
            reference = _reference(entry.path, entry.stat())
        except OSError as error:  # a broken link, or deleted since the folder was listed
            logger.warning("passed over %r: %s", entry.path, error.strerror)
            continue
        if reference.version:
            found += 1
            yield reference
        else:  # a pipe or device with the name of an image would block whoever reads it
            logger.warning("passed over %r: it is no regular file", entry.path)
            other += 1
    if not found:
        raise names.nothing_in(root, f"{other + names.passed_over} other files seen")


class _Walk:
    """What is taken of a folder and those below it."""

    def __init__(self, root: str, names: Names) -> None:
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
        """What lies in a folder that is left out, up to a number of entries. Links are not followed."""
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
