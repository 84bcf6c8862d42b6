"""One way to walk a folder, for images and for the captions beside them."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator

from db.errors import SourceError

logger = logging.getLogger(__name__)


def is_visible(entry: os.DirEntry[str], is_folder: bool) -> bool:  # noqa: ARG001 -- as `files_below` calls it
    """Its name does not begin with a dot."""
    return not entry.name.startswith(".")


def files_below(root: str, wanted: Callable[[os.DirEntry[str], bool], bool] = is_visible) -> Iterator[os.DirEntry[str]]:
    """Everything that is no folder, a folder at a time: only names of folders still to visit are held.

    A folder that several paths lead to is visited once, by its real path where that lies below the root:
    linked folders wait until the real ones are done. Otherwise the order of a listing would decide under
    which of its URIs an image is known.

    Args:
        wanted: given an entry and whether it is a folder: whether it is yielded, or visited.
    """
    real, linked = [root], deque[str]()
    visited: set[tuple[int, int]] = set()
    while real or linked:
        folder = real.pop() if real else linked.popleft()
        try:
            facts = os.stat(folder)  # noqa: PTH116 -- paths are strings here: Path is slow by the million
            identity = (facts.st_dev, facts.st_ino)
            if identity in visited:
                continue
            visited.add(identity)
            with os.scandir(folder) as entries:
                for entry in entries:
                    is_folder = _is_folder(entry)
                    if not wanted(entry, is_folder):
                        continue
                    if not is_folder:
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
