"""Names of outputs: the part of a uri below the root of an export."""

import os
from pathlib import PurePosixPath

from producer.references import file_path


def common_folder(first: str, last: str) -> str:
    """What all uris from the first to the last one in bytewise order begin with, up to a slash."""
    # What the first and the last one begin with, all between them begin with.
    common = os.path.commonprefix([first, last])  # noqa: RUF071 - cut at a slash in the next line
    return common[: common.rfind("/") + 1]


def relative_name(uri: str, folder: str) -> str | None:
    """What is left of a uri below a folder, as a path; None when it is not below it, leads out of it, or is no name.

    Keys are strangers' text.
    """
    if not uri.startswith(folder):
        return None
    # Files and objects together have nothing in common: they go to `file/...` and `s3/...`.
    inside = uri.removeprefix(folder) if folder else uri.replace("://", "/", 1)
    relative = PurePosixPath(file_path(inside) if uri.startswith("file://") else inside)
    # An object's key may be anything, `../../etc/cron.d/x` too.
    cannot_be = not relative.name or "\0" in str(relative)
    return None if cannot_be or relative.is_absolute() or ".." in relative.parts else str(relative)
