"""References to local files: one of them, or all images below a folder."""

import logging
import os
import stat
from collections.abc import Iterator

from db.errors import SourceError
from db.folders import files_below
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
    for entry in files_below(root):
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
