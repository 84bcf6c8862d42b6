"""Which names below a folder or a prefix are taken for images, and how many were not, and why."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from db.errors import SettingsError, SourceError
from db.names.plural import counted
from producer.sources.extensions import KNOWN, extension, is_image

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

SYSTEM_FOLDERS = (
    "@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "$RECYCLE.BIN", "RECYCLER",
    "System Volume Information", "__MACOSX", "lost+found",
)  # fmt: skip
"""Thumbnails, trash and snapshots of NAS boxes and of Windows, and what macOS adds to archives."""
SYSTEM_FILES = ("Thumbs.db", "ehthumbs.db", "desktop.ini")
_LEFT_OUT = re.compile(
    # A name that begins with a dot, and is not `.` or `..`, which keys in S3 may hold.
    rf"(?:^|/)(?:\.(?!\.?(?:/|$))|(?:{'|'.join(map(re.escape, SYSTEM_FOLDERS))})/"
    rf"|(?:{'|'.join(map(re.escape, SYSTEM_FILES))})$)",
    re.IGNORECASE,
)
_EXTENSIONS = 100
"""Different ones that are counted, so that a million odd names cost no memory."""
_LONGEST = 12
"""Characters after the last dot that can be an extension."""


class Names:
    """What is taken, and counts of what was not. One for all sources of a command.

    Args:
        exclude: patterns as in a `.gitignore`, for paths relative to the source.
        default_excludes: whether hidden names and those of `SYSTEM_FOLDERS` and `SYSTEM_FILES` are left out.
        all_names: take names that do not end like an image too, and let their content decide.

    Raises:
        SettingsError: a pattern is none.
    """

    def __init__(self, exclude: Iterable[str] = (), *, default_excludes: bool = True, all_names: bool = False) -> None:
        self.all_names = all_names
        self._default_excludes = default_excludes
        self._exclude = _patterns(list(exclude))
        self.hidden = 0
        """Images with hidden or system names, or in such folders."""
        self.more_hidden = False
        """There are more of them: counting was given up."""
        self.excluded = 0
        """Images that a pattern left out."""
        self.extensions: Counter[str] = Counter()
        """Of the names that were passed over, because they do not end like an image."""

    @property
    def passed_over(self) -> int:
        """Names that do not end like an image."""
        return self.extensions.total()

    def take(self, path: str) -> bool:
        """Whether a file is taken; counts it where it is not.

        Args:
            path: relative to the source, with slashes.
        """
        ends_well = self.all_names or is_image(path)
        if self._default_excludes and _LEFT_OUT.search(path):
            self.hidden += ends_well
            return False
        if self._exclude and self._exclude.match_file(path):
            self.excluded += ends_well
            return False
        if not ends_well:
            self._pass_over(extension(path))
        return ends_well

    def enter(self, folder: str) -> bool:
        """Whether files below a folder may be taken."""
        below = folder + "/"
        return not (
            (self._default_excludes and _LEFT_OUT.search(below)) or (self._exclude and self._exclude.match_file(below))
        )

    def keep(self, path: str) -> bool:
        """Whether a pattern leaves out what a list names, which is taken whatever it is called."""
        left_out = bool(self._exclude and self._exclude.match_file(path))
        self.excluded += left_out
        return not left_out

    @cached_property
    def has_patterns(self) -> bool:
        return self._exclude is not None

    def sentences(self) -> Iterator[str]:
        """What was not taken, and what takes it."""
        if self.passed_over:
            listed = ", ".join(f".{name}" if name else "none at all" for name, _ in self.extensions.most_common(3))
            yield (
                f"{counted(self.passed_over, 'name')} passed over (no image extension: {listed}); --all-names takes "
                "every name"
            )
        yield from self._left_out()

    def nothing_in(self, place: str, others: str) -> SourceError:
        """The error for a place without an image, to be raised."""
        left_out = "".join(f"; {sentence}" for sentence in self._left_out())
        return SourceError(
            f"no image files in {place!r} ({others}; known extensions: {KNOWN}; --all-names takes every name{left_out})"
        )

    def _left_out(self) -> Iterator[str]:
        if self.hidden:
            more = "more than " if self.more_hidden else ""
            yield (
                f"{more}{counted(self.hidden, 'file')} in hidden or system folders left out; --no-default-excludes "
                "takes them"
            )
        if self.excluded:
            yield f"{counted(self.excluded, 'file')} left out by --exclude"

    def _pass_over(self, name: str) -> None:
        known = name if len(name) <= _LONGEST else ""
        if known not in self.extensions and len(self.extensions) >= _EXTENSIONS:
            known = ""
        self.extensions[known] += 1


def _patterns(exclude: list[str]) -> "GitIgnoreSpec | None":
    if not exclude:
        return None
    from pathspec import GitIgnoreSpec

    if any(not pattern.strip() for pattern in exclude):
        raise SettingsError(
            "--exclude is empty: give a pattern as in a .gitignore, for example 'drafts/' or '*_small.*'."
        )
    try:
        # A line of a file that begins with # is a comment; here it is a name such as `#recycle`.
        return GitIgnoreSpec.from_lines("\\" + one if one.startswith("#") else one for one in exclude)
    except ValueError as error:
        raise SettingsError(f"--exclude holds what is no pattern of a .gitignore: {error}.") from error
