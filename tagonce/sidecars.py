"""Sidecar files: `cat.jpg` gets `cat.txt` with its caption, beside it or in a place of its own."""

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from db.errors import SettingsError
from db.plural import counted
from producer.references import file_path
from tagonce.destinations import Files
from tagonce.export_options import Existing

_ESCAPED = re.compile(r"\\([()])")
_WEIGHTED = re.compile(r"\((.*):[0-9.]+\)")


def common_folder(first: str, last: str) -> str:
    """What all uris from the first to the last one in bytewise order begin with, up to a slash."""
    # What the first and the last one begin with, all between them begin with.
    common = os.path.commonprefix([first, last])  # noqa: RUF071 - cut at a slash in the next line
    return common[: common.rfind("/") + 1]


def relative_name(uri: str, folder: str) -> str | None:
    """What is left of a uri below a folder, as a path; None when that leads out of it, or is no name.

    Keys are strangers' text.
    """
    # Files and objects together have nothing in common: they go to `file/...` and `s3/...`.
    inside = uri.removeprefix(folder) if folder else uri.replace("://", "/", 1)
    relative = PurePosixPath(file_path(inside) if uri.startswith("file://") else inside)
    # An object's key may be anything, `../../etc/cron.d/x` too.
    cannot_be = not relative.name or "\0" in str(relative)
    return None if cannot_be or relative.is_absolute() or ".." in relative.parts else str(relative)


class Sidecars:
    """Writes one small file an image and counts what it did.

    Args:
        files: where to write.
        folder: what all uris begin with and names leave out; None for beside the images.
        extension: of the files, with its dot.
        whole_name: append it to the image's name instead of replacing the image's own.
        existing: what to do with files that are there.
        separator: between the tags of a caption, for merging.
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
    ) -> None:
        self.written = self.kept = self.refused = self.shared = 0
        self._files = files
        self._folder = folder
        self._extension = extension
        self._whole_name = whole_name
        self._existing = existing
        self._separator = separator
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
        """By what happened: written, left as they were, shared names, refused names."""
        return {"written": self.written, "left": self.kept, "shared": self.shared, "refused": self.refused}

    @property
    def summary(self) -> str:
        """The same in words."""
        to = "" if self._folder is None else "to "
        parts = [f"{counted(self.written, 'caption')} written {to}{self._files.label}"]
        if self.kept and self._existing is Existing.MERGE:
            parts.append(f"{self.kept:,} had all these tags already")
        elif self.kept:
            parts.append(
                f"{self.kept:,} were there already and were left (--overwrite replaces them, --merge adds to them)"
            )
        if self.shared:
            parts.append(
                f"{self.shared:,} would share the file of another image (cat.jpg, cat.png): the first one has it"
            )
        if self.refused:
            parts.append(f"{self.refused:,} refused: their names lead out of the folder, or are too long")
        return "; ".join(parts) + "."

    def write(self, uris: Sequence[str], captions: Sequence[str], lists: Sequence[Sequence[str]] = ()) -> None:
        """The files of some images. One line a caption: trainers read only the first.

        Args:
            lists: the texts that the captions join, for merging.

        Raises:
            StopError: one of them cannot be written.
        """
        jobs = []
        for position, uri in enumerate(uris):
            name = self._name(uri)
            if name is None:
                self.refused += 1
            elif hash(name) in self._seen:
                self.shared += 1
            else:
                self._seen.add(hash(name))
                there = self._existing is not Existing.OVERWRITE and self._files.has(name)
                if there and self._existing is Existing.SKIP:
                    self.kept += 1
                else:
                    jobs.append((name, captions[position], lists[position] if there else None))
        written = sum(self._pool.map(self._write_one, jobs) if self._pool else map(self._write_one, jobs))
        self.written += written
        self.kept += len(jobs) - written

    def _write_one(self, job: tuple[str, str, Sequence[str] | None]) -> bool:
        name, caption, to_merge = job
        if to_merge is None:
            self._files.write(name, caption + "\n")
            return True
        there = self._files.read(name)
        text = merged(there, to_merge, self._separator)
        if text is None:
            return False
        self._files.write(name, text)
        return True

    def _name(self, uri: str) -> str | None:
        name = file_path(uri) if self._folder is None else relative_name(uri, self._folder)
        return None if name is None else self._files.full_name(self._with_extension(name))

    def _with_extension(self, name: str) -> str:
        return name + self._extension if self._whole_name else str(Path(name).with_suffix(self._extension))


def merged(there: str, texts: Sequence[str], separator: str) -> str | None:
    """What is in a file, unchanged, and behind it the texts that it lacks; None when it lacks none.

    Spaces and underscores, upper and lower case, escaped and plain brackets, and weights make no other tag.
    """
    mark = separator.strip() or separator
    known = set(_as_compared(there.lstrip("\ufeff"), mark))
    # A text that holds the separator is several tags for whoever reads the file.
    new = [text for text in texts if not known.issuperset(_as_compared(text, mark))]
    if not new:
        return None
    lines = [line.rstrip("\r").removesuffix(mark) for line in there.split("\n") if line.strip()]
    return separator.join([*lines, *new]) + "\n"


def beside(first: str, last: str) -> None:
    """Make sure that captions can lie beside all images between two uris.

    Raises:
        SettingsError: some of them are in S3.
    """
    if not all(uri.startswith("file://") for uri in (first, last)):
        raise SettingsError(
            "Some of these images are in S3: say with --out in which folder or under which s3:// prefix their "
            "captions go."
        )


def _as_compared(text: str, mark: str) -> Iterator[str]:
    """The tags of a text, in one spelling."""
    for tag in re.split(f"{re.escape(mark)}|\n", text):
        weighted = _WEIGHTED.fullmatch(tag.strip())
        plain = weighted.group(1) if weighted else tag
        yield _ESCAPED.sub(r"\1", plain).replace("_", " ").strip().casefold()
