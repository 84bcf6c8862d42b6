"""Selects the names below a folder or a prefix that are images, and counts the others by reason."""

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
    # A name that begins with a dot, except `.` and `..`, which may be part of a key in S3.
    rf"(?:^|/)(?:\.(?!\.?(?:/|$))|(?:{'|'.join(map(re.escape, SYSTEM_FOLDERS))})/"
    rf"|(?:{'|'.join(map(re.escape, SYSTEM_FILES))})$)",
    re.IGNORECASE,
)
_EXTENSIONS = 100
"""Different extensions that are counted, so that a million unusual names do not use memory."""
_LONGEST = 12
"""Characters of an extension, at most."""


class NameFilter:
    """Selects names and counts the others. One filter serves all sources of a command.

    Args:
        exclude: patterns as in a `.gitignore`, for paths relative to the source.
        default_excludes: exclude hidden names and those of `SYSTEM_FOLDERS` and `SYSTEM_FILES`.
        all_names: also take names without the extension of an image; their content decides.

    Raises:
        SettingsError: a pattern is empty or invalid.
    """

    def __init__(self, exclude: Iterable[str] = (), *, default_excludes: bool = True, all_names: bool = False) -> None:
        self.all_names = all_names
        self._default_excludes = default_excludes
        self._exclude = _patterns(list(exclude))
        self.hidden = 0
        """Images excluded because they, or a folder above them, have a hidden or system name."""
        self.more_hidden = False
        """Whether `hidden` is a lower bound, because counting stopped."""
        self.excluded = 0
        """Images that a pattern excluded."""
        self.extensions: Counter[str] = Counter()
        """Number of skipped names by extension: those without the extension of an image."""

    @property
    def passed_over(self) -> int:
        """Number of skipped names: those without the extension of an image."""
        return self.extensions.total()

    def take(self, path: str) -> bool:
        """Whether to take a file. Counts it if not.

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
        """Whether to visit a folder."""
        below = folder + "/"
        return not (
            (self._default_excludes and _LEFT_OUT.search(below)) or (self._exclude and self._exclude.match_file(below))
        )

    def keep(self, path: str) -> bool:
        """Whether to take an entry of a list: if no pattern excludes it, whatever its extension. Counts it if not."""
        left_out = bool(self._exclude and self._exclude.match_file(path))
        self.excluded += left_out
        return not left_out

    @cached_property
    def has_patterns(self) -> bool:
        return self._exclude is not None

    def sentences(self) -> Iterator[str]:
        """Sentences for people: how many names were skipped or excluded, and the option that takes them."""
        if self.passed_over:
            listed = ", ".join(f".{name}" if name else "none at all" for name, _ in self.extensions.most_common(3))
            yield (
                f"{counted(self.passed_over, 'name')} passed over (no image extension: {listed}); --all-names takes "
                "every name"
            )
        yield from self._left_out()

    def nothing_in(self, place: str, others: str) -> SourceError:
        """The error for a place without an image, for the caller to raise."""
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
            "--exclude is empty; it takes a pattern as in a .gitignore, for example 'drafts/' or '*_small.*'."
        )
    try:
        # In a file, # begins a comment; here it begins a name such as `#recycle`.
        return GitIgnoreSpec.from_lines("\\" + one if one.startswith("#") else one for one in exclude)
    except ValueError as error:
        raise SettingsError(f"--exclude: invalid .gitignore pattern: {error}.") from error
