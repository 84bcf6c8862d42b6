"""The values of `--gone` of `tag` and `enqueue`."""

from enum import StrEnum


class IfGone(StrEnum):
    """Whether to mark images that a folder or prefix no longer has."""

    MARK = "mark"
    KEEP = "keep"
