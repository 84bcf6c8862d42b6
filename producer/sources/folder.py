"""References to local files: one of them, or all images below a folder."""

import logging
import os
import stat
from collections import deque
from collections.abc import Iterator

from db.errors import SourceError
from producer.references import Reference, file_uri
from producer.sources.extensions import KNOWN, is_image

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


def in_folder(root: str) -> Iterator[Reference]:
    """Every image below an absolute path, in the order the file system gives them.

    Links are followed and keep their own name; names that start with a dot are passed over.
    Raises SourceError when the root cannot be read, or when there is no image in it.
    """
    found = other = 0
    for entry in _files(root):
        if not is_image(entry.name):
            other += 1
            continue
        try:
            reference = _reference(entry.path, entry.stat())
        except OSError as error:  # a broken link, or deleted since the folder was listed
            logger.warning("passed over %r: %s", entry.path, error.strerror)
            continue
        if reference.version:
            found += 1
            yield reference
        else:  # a pipe or device with the name of an image would block whoever reads it
            other += 1
    if not found:
        raise SourceError(f"no image files in {root!r} ({other} other files seen; known extensions: {KNOWN})")


def _files(root: str) -> Iterator[os.DirEntry[str]]:
    """Everything that is no folder, a folder at a time: only names of folders still to visit are held.

    A folder that several paths lead to is visited once, by its real path where that lies below the root:
    linked folders wait until the real ones are done. Otherwise the order of a listing would decide under
    which of its URIs an image is known.
    """
    real, linked = [root], deque[str]()
    visited: set[tuple[int, int]] = set()
    while real or linked:
        folder = real.pop() if real else linked.popleft()
        try:
            facts = os.stat(folder)  # noqa: PTH116 -- see local_reference
            identity = (facts.st_dev, facts.st_ino)
            if identity in visited:
                continue
            visited.add(identity)
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if not _is_folder(entry):
                        yield entry
                    elif entry.is_symlink():
                        linked.append(entry.path)
                    else:
                        real.append(entry.path)
        except OSError as error:
            if folder == root:
                raise SourceError(f"cannot read the folder {root!r}: {error.strerror}.") from error
            logger.warning("cannot read the folder %r, passed over: %s", folder, error.strerror)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder we may not enter: taken for a file, which then warns
        return False
