"""Limits reading to the folders and prefixes of TAGONCE_ROOTS, whatever references the database holds."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from db.errors import ImageError, Reason, SettingsError
from db.names.uris import file_path

_S3 = "s3://"
_UP_OR_HERE = {".", ".."}
_FOUND = "/proc/self/fd/{}"
"""Linux: a link to the real path of a descriptor's file, which opens this file again."""


class Roots:
    """Refuses files and objects outside of the roots.

    Args:
        roots: absolute folders, `file:///folder`, `s3://bucket` and `s3://bucket/prefix`. Empty: no limit.

    Raises:
        SettingsError: an entry is none of these.
    """

    def __init__(self, roots: Sequence[str]) -> None:
        self._limited = bool(roots)
        self._prefixes = [_with_slash(root) for root in roots if root.startswith(_S3)]
        self._folders = [_with_slash(os.path.realpath(_folder(root))) for root in roots if not root.startswith(_S3)]

    def check_object(self, uri: str) -> None:
        """Raises ImageError (`denied`) for an object outside."""
        if not self._limited:
            return
        # Behind a proxy that normalises paths, `..` in a key leads to other buckets.
        climbs = not _UP_OR_HERE.isdisjoint(uri.removeprefix(_S3).split("/"))
        if climbs or not any(uri.startswith(prefix) for prefix in self._prefixes):
            raise _outside()

    def check_path(self, path: str) -> None:
        """Raises ImageError (`denied`) for a file whose real path is outside. Opens nothing."""
        if self._limited and not self._holds(os.path.realpath(path)):
            raise _outside()

    def opener(self, path: str, flags: int) -> int:
        """Open a file, for `open(..., opener=...)`. Raises ImageError (`denied`) if it is outside.

        Opening a pipe does not wait for a writer.
        """
        flags |= os.O_NONBLOCK | os.O_NOCTTY
        if not self._limited:
            return os.open(path, flags)
        if sys.platform != "linux":
            self.check_path(path)
            return os.open(path, flags)
        try:
            found = os.open(path, os.O_PATH | os.O_CLOEXEC)  # finds the file, opens nothing
        except OSError:
            self.check_path(path)  # no user of the queue learns whether a file outside exists
            raise
        try:
            # The link names what was found, even if another process replaces it now.
            there = _FOUND.format(found)
            if not self._holds(os.readlink(there)):  # noqa: PTH115 - a path per image is slow
                raise _outside()
            return os.open(there, flags)
        finally:
            os.close(found)

    def _holds(self, path: str) -> bool:
        return any(path.startswith(folder) for folder in self._folders)


def _outside() -> ImageError:
    return ImageError(Reason.DENIED, "it is outside of TAGONCE_ROOTS, where this worker may read")


def _folder(root: str) -> str:
    path = file_path(root) if root.startswith("file://") else root
    if not Path(path).is_absolute():
        raise SettingsError(
            f"TAGONCE_ROOTS holds {root!r}. It takes absolute folders and s3://bucket/prefix, separated by commas; "
            "write a folder with a comma in its name as file:///folder%2Cname."
        )
    return path


def _with_slash(root: str) -> str:
    return root if root.endswith("/") else root + "/"
