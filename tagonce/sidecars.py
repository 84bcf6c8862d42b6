"""Sidecar files: `cat.jpg` gets `cat.txt` with its caption, beside it or in a folder of its own."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from db.errors import SettingsError
from db.export import Tagged, whole_file
from producer.references import file_path

SUFFIX = ".txt"
LONGEST_NAME = 255
"""Bytes that file systems give a name. Between two slashes of an object's key there may be 1,024."""


class Sidecars:
    """Writes one small file an image and counts what it did.

    Args:
        out: folder for the files, with the sub-folders below what all images have in common; None for beside.
        ends: first and last uri of what will be written, in bytewise order.
        overwrite: replace files that are there.

    Raises:
        SettingsError: there are images in S3 and no folder to write to.
    """

    def __init__(self, out: Path | None, *, ends: tuple[str, str], overwrite: bool) -> None:
        if out is None and not all(uri.startswith("file://") for uri in ends):
            raise SettingsError("Some of these images are in S3: say with --out in which folder their captions go.")
        self.written = 0
        self.kept = 0
        self.refused = 0
        self.shared = 0
        self._seen: set[int] = set()  # hashes of paths: half the memory of a set of paths, and enough to warn
        self._out = out.absolute() if out else None
        # In bytewise order, what the first and the last one begin with, all between them begin with.
        common = os.path.commonprefix(ends)  # noqa: RUF071 - cut at a slash in the next line
        self._common = common[: common.rfind("/") + 1]
        self._overwrite = overwrite

    @property
    def summary(self) -> str:
        parts = [f"{self.written:,} captions written" + (f" to {self._out}" if self._out else " beside the images")]
        if self.kept:
            parts.append(f"{self.kept:,} were there already and were left (--overwrite replaces them)")
        if self.shared:
            parts.append(
                f"{self.shared:,} would share the file of another image (cat.jpg, cat.png): the first one has it"
            )
        if self.refused:
            parts.append(f"{self.refused:,} refused: their names lead out of the folder, or are too long")
        return "; ".join(parts) + "."

    def write_all(self, rows: Iterable[Tagged], caption: Callable[[Tagged], str]) -> None:
        """One line a file: trainers read only the first."""
        for one in rows:
            path = self._path(one.uri)
            if path is None:
                self.refused += 1
            elif hash(path) in self._seen:
                self.shared += 1
            elif not self._overwrite and path.exists():
                self.kept += 1
            else:
                with whole_file(path) as file:
                    file.write(caption(one) + "\n")
                self._seen.add(hash(path))
                self.written += 1

    def _path(self, uri: str) -> Path | None:
        if self._out is None:
            return Path(file_path(uri)).with_suffix(SUFFIX)
        # Files and objects together have nothing in common: they go to `file/...` and `s3/...`.
        inside = uri.removeprefix(self._common) if self._common else uri.replace("://", "/", 1)
        relative = PurePosixPath(file_path(inside) if uri.startswith("file://") else inside)
        # An object's key may be anything, `../../etc/cron.d/x` too.
        if relative.is_absolute() or ".." in relative.parts or not relative.name:
            return None
        path = (self._out / relative).with_suffix(SUFFIX)
        return None if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts) else path
