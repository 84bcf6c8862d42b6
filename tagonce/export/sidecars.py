"""Sidecar files: `cat.jpg` gets `cat.txt` with its caption, beside it or in another folder."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from db.errors import SettingsError
from db.names.plural import counted
from db.names.uris import file_path
from producer.uris import path_or_uri
from tagonce.export.choices import Existing
from tagonce.export.merge_captions import merged, understood
from tagonce.export.relative_names import relative_name
from tagonce.export.small_files import Files


class Outcome(StrEnum):
    """What happened to a caption."""

    NEW = "new"
    REPLACED = "replaced"
    """Or added to."""
    UNCHANGED = "unchanged"
    """The file holds this caption, or has all of its tags."""
    LEFT = "left"
    """The file exists, and neither --overwrite nor --merge was given."""
    UNREADABLE = "unreadable"
    """The file exists and is not text, or its encoding lacks a character."""
    SOURCE = "source"
    """The file is a registered image."""
    SHARED = "shared"
    """The file belongs to another image of this export."""
    REFUSED = "refused"
    """The name cannot be used."""


WRITTEN = (Outcome.NEW, Outcome.REPLACED)
_WORDS = {
    Outcome.UNCHANGED: "were up to date",
    Outcome.LEFT: "exist and were not changed (--overwrite replaces them, --merge adds to them)",
    Outcome.UNREADABLE: "exist and were not changed: they are not text, or their encoding lacks a character ({})",
    Outcome.SOURCE: "refused: the file is an image of the database ({})",
    Outcome.SHARED: "have the file name of another image ({}): the first image has the file",
    Outcome.REFUSED: "refused: their names lead out of the folder, or are too long ({})",
}
"""With an example."""


class Sidecars:
    """Writes one small file for each image and counts the outcomes.

    Args:
        files: where to write.
        folder: the beginning of all uris that names leave out; None for beside the images.
        extension: of the files, with its dot.
        whole_name: append the extension to the image's name instead of replacing the image's extension.
        existing: what to do with files that exist.
        separator: between the tags of a caption, for merging.
        dry: count the outcomes, and write nothing.
    """

    def __init__(
        self,
        files: Files,
        folder: str | None,
        *,
        extension: str,
        whole_name: bool = False,
        existing: Existing = Existing.SKIP,
        separator: str = ", ",
        dry: bool = False,
    ) -> None:
        self._outcomes: Counter[Outcome] = Counter()
        self._examples: dict[Outcome, str] = {}
        self._files = files
        self._folder = folder
        self._extension = extension
        self._whole_name = whole_name
        self._existing = existing
        self._separator = separator
        self._dry = dry
        self._seen: set[int] = set()  # hashes of names: half the memory of a set of names, and enough to warn
        self._pool = ThreadPoolExecutor(files.threads) if files.threads > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    @property
    def counts(self) -> dict[str, int]:
        """Captions by outcome; `written` are the new and the replaced ones."""
        counts = {str(outcome): self._outcomes[outcome] for outcome in Outcome}
        return {"written": sum(self._outcomes[outcome] for outcome in WRITTEN), **counts}

    @property
    def summary(self) -> str:
        """The same in words."""
        to = "" if self._folder is None else "to "
        replaced = f", {self._outcomes[Outcome.REPLACED]:,} of them over older ones" * (
            Outcome.REPLACED in self._outcomes
        )
        written = f"{counted(self.counts['written'], 'caption')} written {to}{self._files.label}{replaced}"
        others = [outcome for outcome in Outcome if outcome not in WRITTEN and self._outcomes[outcome]]
        return "; ".join([written, *(f"{self._outcomes[one]:,} {self._words(one)}" for one in others)]) + "."

    @property
    def plan(self) -> str:
        """What would be done, in words, with an example of each outcome."""
        to = "" if self._folder is None else "to "
        named = {
            Outcome.NEW: "new",
            Outcome.REPLACED: "added to" if self._existing is Existing.MERGE else "replaced",
        }
        parts = [
            f"{self._outcomes[one]:,} {named.get(one) or self._words(one)}"
            + f" ({self._examples[one]})" * (one in named or one in {Outcome.UNCHANGED, Outcome.LEFT})
            for one in Outcome
            if self._outcomes[one]
        ]
        return "; ".join([f"Nothing was written {to}{self._files.label}. It would be: {parts[0]}", *parts[1:]]) + "."

    def _words(self, outcome: Outcome) -> str:
        if outcome is Outcome.UNCHANGED and self._existing is Existing.MERGE:
            return "have all these tags"
        return _WORDS[outcome].format(self._examples[outcome])

    def write(self, uris: Sequence[str], captions: Sequence[str], lists: Sequence[Sequence[str]] = ()) -> None:
        """Write the files of some images. One line a caption: trainers read only the first.

        Args:
            lists: the texts that the captions join, for merging.

        Raises:
            StopError: one of them cannot be written.
        """
        jobs: list[tuple[str, str, Sequence[str]]] = []
        owners = []
        for position, uri in enumerate(uris):
            name = self._name(uri)
            if name is None:
                self._count(Outcome.REFUSED, path_or_uri(uri))
            elif hash(name) in self._seen:
                self._count(Outcome.SHARED, f"{name}, of {path_or_uri(uri)} too")
            else:
                self._seen.add(hash(name))
                jobs.append((name, captions[position], lists[position] if lists else ()))
                owners.append(uri)
        outcomes = self._pool.map(self._write_one, jobs) if self._pool else map(self._write_one, jobs)
        for (name, _, _), uri, outcome in zip(jobs, owners, outcomes, strict=True):
            self._count(outcome, f"{name}, of {path_or_uri(uri)} too" if outcome is Outcome.SHARED else name)

    def _count(self, outcome: Outcome, example: str) -> None:
        self._outcomes[outcome] += 1
        self._examples.setdefault(outcome, example)

    def _write_one(self, job: tuple[str, str, Sequence[str]]) -> Outcome:
        name, caption, texts = job
        content, outcome = (caption + "\n").encode("utf-8", "surrogateescape"), Outcome.NEW
        if self._files.is_source(name):
            return Outcome.SOURCE
        if self._files.has(name):
            instead = self._instead(name, content, texts)
            if isinstance(instead, Outcome):
                return instead
            content, outcome = instead, Outcome.REPLACED
        if not self._dry:
            self._files.write(name, content)
        return outcome

    def _instead(self, name: str, content: bytes, texts: Sequence[str]) -> bytes | Outcome:
        """The new content of a file that exists, or the reason why it stays unchanged."""
        if self._files.is_ours(name):
            return Outcome.SHARED
        if self._existing is Existing.SKIP:
            return Outcome.LEFT
        if self._existing is Existing.OVERWRITE and self._files.equals(name, content):
            return Outcome.UNCHANGED
        found = self._files.read(name)
        there = None if found is None else understood(found)
        # Also with --overwrite: a file that is not text is not a caption, and may be the only copy of something else.
        if there is None:
            return Outcome.UNREADABLE
        if self._existing is Existing.OVERWRITE:
            return content
        text = merged(there.text, texts, self._separator)
        return Outcome.UNCHANGED if text is None else there.with_text(text) or Outcome.UNREADABLE

    def _name(self, uri: str) -> str | None:
        name = file_path(uri) if self._folder is None else relative_name(uri, self._folder)
        return None if name is None else self._files.full_name(self._with_extension(name))

    def _with_extension(self, name: str) -> str:
        return name + self._extension if self._whole_name else str(Path(name).with_suffix(self._extension))


def beside(first: str, last: str) -> None:
    """Check that captions can be written beside all images between two uris.

    Raises:
        SettingsError: some of them are in S3.
    """
    if not all(uri.startswith("file://") for uri in (first, last)):
        raise SettingsError(
            "Some of these images are in S3: name with --out a folder or an s3:// prefix for their captions."
        )
