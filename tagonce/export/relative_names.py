"""Names of outputs: the part of a uri below the root of an export."""

import os
from pathlib import PurePosixPath

from db.names.uris import file_path


def common_folder(first: str, last: str) -> str:
    """The common folder of all uris between two in bytewise order: their common prefix, up to a slash."""
    common = os.path.commonprefix([first, last])  # noqa: RUF071 - cut at a slash in the next line
    return common[: common.rfind("/") + 1]


def relative_name(uri: str, folder: str) -> str | None:
    """The path of a uri below a folder; None if it is not below the folder, leads out of it, or cannot be a path.

    Keys of objects are untrusted text.
    """
    if not uri.startswith(folder):
        return None
    # Files and objects have no common folder: they go to `file/...` and `s3/...`.
    inside = uri.removeprefix(folder) if folder else uri.replace("://", "/", 1)
    relative = PurePosixPath(file_path(inside) if uri.startswith("file://") else inside)
    # A key may be any text, also `../../etc/cron.d/x`.
    cannot_be = not relative.name or "\0" in str(relative)
    return None if cannot_be or relative.is_absolute() or ".." in relative.parts else str(relative)
