"""Local files that a list names, in the spelling of the machine where the list was made."""

import logging
import posixpath
from collections.abc import Iterator

from db.errors import SourceError
from db.names.plural import counted
from db.names.spellings import spellings, windows_parts
from producer.references import Reference, file_path
from producer.sources.addresses import resolve
from producer.sources.folder import local_reference

logger = logging.getLogger(__name__)


class LocalNames:
    """Looks up what a list names. The name as it stands counts; other spellings only where no file has it.

    Args:
        name: of the list, for messages.
        base: absolute path of the folder where relative names start.
    """

    def __init__(self, name: str, base: str) -> None:
        self._name = name
        self._base = base
        self._respelt = 0
        self._example = ("", "")
        self._root: list[str] | None = None
        """The folder of Windows that is `base` here: what the first path that was found has before it."""

    def reference(self, path: str, text: str) -> Reference:
        """The file at a path, or at another spelling of the text that the path was made from.

        Without any, a reference to that path without a version.
        """
        named = local_reference(path)
        if named.version:
            return named
        for other in self._others(text):
            try:
                reference = local_reference(resolve(other, self._base))
            except SourceError:
                continue
            if reference.version:
                self._respelt += 1
                self._example = self._example if self._respelt > 1 else (text, file_path(reference.uri))
                return reference
        return named

    def report(self) -> None:
        """Say how many files have another name than the list gives."""
        if self._respelt:
            logger.warning(
                "%s: %s found under another spelling, for example %r as %r.",
                self._name, counted(self._respelt, "file"), *self._example,
            )  # fmt: skip

    def _others(self, text: str) -> Iterator[str]:
        text = file_path(text) if text.lower().startswith("file://") else text
        for spelling in spellings(text):
            yield spelling
            yield from self._below_base(windows_parts(spelling.removeprefix("/")))

    def _below_base(self, parts: list[str]) -> Iterator[str]:
        r"""Where `C:\data\sub\a.png` may be: the longest end of it that is a file below the base.

        The first file that is found tells which folder the base is. It is the same for all that follow.
        """
        for start in range(len(parts)) if self._root is None else [len(self._root)]:
            if self._root is not None and parts[:start] != self._root:
                return
            path = posixpath.join(self._base, *parts[start:])
            for spelling in spellings(path):
                if self._root is None and local_reference(spelling).version:
                    self._root = parts[:start]
                yield spelling
