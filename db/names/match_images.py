"""Find images by the references in people's files: a uri, a path, the end of a path, a hash of the content.

The index holds hashes of names in sorted arrays: 16 bytes per image for each kind of name, built on first use. (Among a
million names, two share one of the 2^64 hashes with a probability of 3 in a hundred million.)
"""

import os
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from sqlalchemy import Connection, select

from db.arrays.types import Int64Array
from db.names.spellings import spellings, windows_parts
from db.names.uris import file_path, file_uri
from db.schema import files, images
from db.sql.current_file import is_file_of
from db.sql.gone_scope import in_scope

_AT_ONCE = 10_000
_LONGEST_END = 4
"""Parts of an absolute Windows path that are looked up: each number of parts needs a table of its own."""
_NONE = np.empty(0, dtype=np.int64)


class Way(NamedTuple):
    """A kind of name of an image."""

    parts: int
    """Number of path components from the end, 1 for the file name; 0 for the whole uri."""
    suffix: bool
    """With the file name extension, or without."""


SHA256 = Way(-1, suffix=False)
"""The hash of the content, `files.sha256`."""
_STEM = Way(1, suffix=False)


@dataclass(frozen=True, slots=True)
class ImageName:
    """A reference to an image in a file of a user."""

    text: str
    """As written."""
    ways: tuple[tuple[Way, str], ...]
    """Names to look up, in order; the first that is found counts."""
    content: bool = False
    """The reference is a hash: it means every image with that content. Any other reference must match one image."""


def by_path(text: str, folder: Path) -> ImageName:
    """A uri, an absolute path, or a path relative to a folder; each also without its extension.

    A relative path that is no image of that folder matches the image whose uri ends with it, component by component:
    `a/1.jpg` matches `s3://b/x/a/1.jpg` and never `s3://b/x/c/1.jpg`. The same holds for an absolute Windows path, of
    which at most the last `_LONGEST_END` components are compared. Other spellings (`db.names.spellings`) are tried
    after the text as written.

    Args:
        folder: the folder of the file that holds the reference.
    """
    plain = file_path(text) if text.lower().startswith("file://") else text
    ways = [way for spelling in spellings(plain) for way in _ways(spelling, folder)]
    return ImageName(text, tuple(dict.fromkeys(ways)))


def _ways(text: str, folder: Path) -> Iterator[tuple[Way, str]]:
    if "\0" in text:
        return
    if "://" in text:
        yield from _both(0, text)
        return
    # Sources make paths absolute in the same way: `..` is resolved, links are not.
    yield from _both(0, file_uri(os.path.abspath(folder / text)))  # noqa: PTH100
    parts = [part for part in PurePosixPath(os.path.normpath(text)).parts if part != ".."]
    if parts and not PurePosixPath(text).is_absolute():
        yield from _both(len(parts), "/".join(parts))
    parts = windows_parts(text.removeprefix("/"))
    for number in range(min(len(parts), _LONGEST_END), 0, -1):
        yield from _both(number, "/".join(parts[-number:]))


def _both(parts: int, name: str) -> Iterator[tuple[Way, str]]:
    yield Way(parts, suffix=True), name
    yield Way(parts, suffix=False), name


def by_md5(text: str) -> ImageName:
    """An md5 of the content. Boorus name files by it: the file name without its extension is compared."""
    return ImageName(text, ((_STEM, text.lower()),), content=True)


def by_sha256(text: str) -> ImageName:
    """A sha256 of the content; else, as Hydrus names files, the file name without its extension is compared."""
    return ImageName(text, ((SHA256, text.lower()), (_STEM, text.lower())), content=True)


class ImageIndex:
    """The images of a database, by name. Tables are built on first use, and do not see later changes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tables: dict[Way, tuple[Int64Array, Int64Array]] = {}

    def find(self, references: Sequence[ImageName]) -> list[Int64Array]:
        """Look up references.

        Returns:
            For each reference, the (matches,) ids of the images that it may mean: none, one, or several.
        """
        found = [_NONE] * len(references)
        unresolved = [number for number, reference in enumerate(references) if reference.ways]
        step = 0
        while unresolved:
            by_way: dict[Way, list[int]] = defaultdict(list)
            for number in unresolved:
                by_way[references[number].ways[step][0]].append(number)
            for way, numbers in by_way.items():
                hashes, ids = self._table(way)
                wanted = _hashes([references[number].ways[step][1] for number in numbers])
                starts = np.searchsorted(hashes, wanted, side="left").tolist()
                stops = np.searchsorted(hashes, wanted, side="right").tolist()
                for number, start, stop in zip(numbers, starts, stops, strict=True):
                    found[number] = ids[start:stop]
            step += 1
            unresolved = [
                number for number in unresolved if not found[number].size and step < len(references[number].ways)
            ]
        return found

    def _table(self, way: Way) -> tuple[Int64Array, Int64Array]:
        """(hashes, image ids), each of shape (images,), sorted by hash."""
        if way not in self._tables:
            ids, hashes = array("q"), array("q")
            query = select(images.c.id, files.c.sha256 if way == SHA256 else images.c.uri)
            if way == SHA256:
                query = query.select_from(images.join(files, is_file_of()))
            query = query.where(in_scope(self._connection, images.c.id)).execution_options(yield_per=_AT_ONCE)
            for rows in self._connection.execute(query).partitions():
                some_ids, values = zip(*rows, strict=True)
                ids.extend(some_ids)
                names = [value.hex() for value in values] if way == SHA256 else [_name(uri, way) for uri in values]
                hashes.extend(map(hash, names))
            unsorted = np.array(hashes, dtype=np.int64)
            order = np.argsort(unsorted, kind="stable")
            self._tables[way] = unsorted[order], np.array(ids, dtype=np.int64)[order]
        return self._tables[way]


def _hashes(names: Sequence[str]) -> Int64Array:
    return np.fromiter(map(hash, names), dtype=np.int64, count=len(names))


def _name(uri: str, way: Way) -> str:
    """The name of an image of one kind. Path components of `file://` are decoded, without percent signs."""
    name = uri
    if way.parts:
        path = file_path(uri) if uri.startswith("file://") else uri.partition("://")[2]
        name = "/".join(path.split("/")[-way.parts :])
    if not way.suffix:
        dot = name.rfind(".")
        name = name[:dot] if dot > name.rfind("/") + 1 else name
    return name
