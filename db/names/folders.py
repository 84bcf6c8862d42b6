"""Walk a folder, for images and for captions."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator

from db.errors import SourceError

logger = logging.getLogger(__name__)


def is_visible(entry: os.DirEntry[str], is_folder: bool) -> bool:  # noqa: ARG001 -- as `files_below` calls it
    """Whether the name of an entry does not begin with a dot."""
    return not entry.name.startswith(".")


def files_below(root: str, wanted: Callable[[os.DirEntry[str], bool], bool] = is_visible) -> Iterator[os.DirEntry[str]]:
    """Yield all files below a folder, one folder at a time. Memory: the paths of the folders still to visit.

    A folder with several paths is visited once, by its real path if that lies below the root: linked folders are
    visited after the real ones. Otherwise the URI of an image would depend on the order of a listing.

    Args:
        wanted: takes an entry and whether it is a folder; returns whether to yield the file or visit the folder.

    Raises:
        SourceError: the root cannot be read. Other folders that cannot be read are logged and skipped.
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
    except OSError:  # a link to itself, or into a forbidden folder: treated as a file, which fails with a warning
        return False
