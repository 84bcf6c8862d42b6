"""Images found by what people call them in their own files: a uri, a path, the end of a path, a hash.

Only hashes of names are kept, in sorted arrays: 16 bytes an image for each way of naming that is asked for, made when
it is asked for first. (Two of a million names share one of 2^64 hashes with a probability of 3 in a hundred million.)
"""

import os
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from db.names.spellings import spellings, windows_parts
from db.names.uris import file_path, file_uri
from db.schema import images
from db.sql.gone_scope import in_scope

Int64Array = npt.NDArray[np.int64]

_AT_ONCE = 10_000
_LONGEST_END = 4
"""Parts of an absolute path of Windows that are looked up: each number of them is a table more."""
_NONE = np.empty(0, dtype=np.int64)


class Way(NamedTuple):
    """One way to name an image."""

    parts: int
    """How many parts of the path from its end, 1 for the file name; 0 for the whole uri."""
    suffix: bool
    """With `.jpg` and the like, or without."""


SHA256 = Way(-1, suffix=False)
"""By content, from `images.sha256`."""
_STEM = Way(1, suffix=False)


@dataclass(frozen=True, slots=True)
class ImageName:
    """What somebody calls an image."""

    text: str
    """As it is written."""
    ways: tuple[tuple[Way, str], ...]
    """What to look for; the first that is found counts."""
    content: bool = False
    """A hash: every image that has it is meant, copies too. Anything else has to be one image."""


def by_path(text: str, folder: Path) -> ImageName:
    """A uri, an absolute path, or a path that starts at a folder; without its suffix too.

    A relative path that leads to no image from there means the image whose uri ends with it, part by part: `a/1.jpg` is
    `s3://b/x/a/1.jpg` and never `s3://b/x/c/1.jpg`. So does an absolute path of Windows, of which at most the last
    `_LONGEST_END` parts count. Other spellings (`db.names.spellings`) count where the text as it stands leads nowhere.
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
    # As sources make paths absolute: `..` goes, links stay.
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
    """Boorus keep a file under the md5 of its content: the name of the file without its suffix."""
    return ImageName(text, ((_STEM, text.lower()),), content=True)


def by_sha256(text: str) -> ImageName:
    """The content; or, as Hydrus keeps files, the name without its suffix."""
    return ImageName(text, ((SHA256, text.lower()), (_STEM, text.lower())), content=True)


class ImageIndex:
    """All images of a database."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tables: dict[Way, tuple[Int64Array, Int64Array]] = {}

    def find(self, references: Sequence[ImageName]) -> list[Int64Array]:
        """The ids of the images that each reference may mean: none, one, or several."""
        found = [_NONE] * len(references)
        open_ = list(range(len(references)))
        step = 0
        open_ = [number for number in open_ if references[number].ways]
        while open_:
            by_way: dict[Way, list[int]] = defaultdict(list)
            for number in open_:
                by_way[references[number].ways[step][0]].append(number)
            for way, numbers in by_way.items():
                hashes, ids = self._table(way)
                wanted = _hashes([references[number].ways[step][1] for number in numbers])
                starts = np.searchsorted(hashes, wanted, side="left").tolist()
                ends = np.searchsorted(hashes, wanted, side="right").tolist()
                for number, start, end in zip(numbers, starts, ends, strict=True):
                    found[number] = ids[start:end]
            step += 1
            open_ = [number for number in open_ if not found[number].size and step < len(references[number].ways)]
        return found

    def _table(self, way: Way) -> tuple[Int64Array, Int64Array]:
        """(hashes, image ids), sorted by hash."""
        if way not in self._tables:
            ids, hashes = array("q"), array("q")
            column = images.c.sha256 if way == SHA256 else images.c.uri
            query = (
                select(images.c.id, column)
                .where(column.is_not(None), in_scope(self._connection, images.c.id))
                .execution_options(yield_per=_AT_ONCE)
            )
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
    """What a way calls an image. Ends of paths are as people see them, without percent signs."""
    name = uri
    if way.parts:
        path = file_path(uri) if uri.startswith("file://") else uri.partition("://")[2]
        name = "/".join(path.split("/")[-way.parts :])
    if not way.suffix:
        dot = name.rfind(".")
        name = name[:dot] if dot > name.rfind("/") + 1 else name
    return name
