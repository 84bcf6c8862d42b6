"""Finds local files that a list names in the spelling of another machine."""

import logging
import posixpath
from collections.abc import Iterator

from db.errors import SourceError
from db.ledger.images import Reference
from db.names.plural import counted
from db.names.spellings import spellings, windows_parts
from db.names.uris import file_path
from producer.sources.addresses import resolve
from producer.sources.folder import local_reference

logger = logging.getLogger(__name__)


class LocalNames:
    """Looks up the files of a list. Another spelling is tried only if no file has the name as written.

    Args:
        name: name of the list, for messages.
        base: absolute path of the folder of relative names.
    """

    def __init__(self, name: str, base: str) -> None:
        self._name = name
        self._base = base
        self._respelt = 0
        self._example = ("", "")
        self._root: list[str] | None = None
        """The Windows folder that corresponds to `base`: the leading parts of the first path that was found."""

    def reference(self, path: str, text: str) -> Reference:
        """A reference to the file at a path, or at another spelling of the text that the path was made from.

        If no such file exists, a reference to the path without a version.
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
        """Log how many files were found under another spelling than that of the list."""
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
        r"""Paths below the base that `C:\data\sub\a.png` may mean, longest trailing part first.

        The first file that is found determines which Windows folder the base is; it is the same for all later paths.
        """
        for start in range(len(parts)) if self._root is None else [len(self._root)]:
            if self._root is not None and parts[:start] != self._root:
                return
            path = posixpath.join(self._base, *parts[start:])
            for spelling in spellings(path):
                if self._root is None and local_reference(spelling).version:
                    self._root = parts[:start]
                yield spelling
