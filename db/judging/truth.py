"""Truth: the tags that people gave to images that a model has tagged, as arrays that a whole pass is compared with."""

import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from urllib.request import url2pathname

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from db import models
from db.errors import SourceError
from db.judging.image_index import ImageIndex
from db.judging.tag_index import TagIndex
from db.judging.truth_files import SIDECAR, Entry, read_entries, read_sidecar
from db.kept import Int64Array, Kept
from db.models import Model
from db.schema import Int16Array, images, predictions
from db.thresholds import begins_with

BESIDE = "beside"
"""Read the sidecars next to the local images of the database."""

_AT_ONCE = 10_000
"""Entries looked up, or images put in order, in one go."""
_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Found:
    """How what was written fitted to what is stored."""

    entries: int = 0
    """Places that speak of an image: files, lines, runs of rows."""
    unmatched: int = 0
    """Of them, those whose image is not in the database."""
    ambiguous: int = 0
    """Of them, those that may mean several images. Their tags count for none."""
    unreadable: int = 0
    """Of them, those that are no text."""
    examples: tuple[str, ...] = ()
    """Some of the unmatched, ambiguous and unreadable ones."""
    unknown: tuple[tuple[str, int], ...] = ()
    """Tags that the model does not have and how often they were given, most frequent first."""


@dataclass(frozen=True, slots=True)
class Truth:
    """Images and their true tags, in CSR form: image i has the tags from offsets[i] to offsets[i + 1]."""

    source: str
    """Where from, in words."""
    image_ids: Int64Array
    """(labelled images,) ascending."""
    offsets: Int64Array
    """(labelled images + 1,)"""
    tag_ids: Int16Array
    """Ascending within an image."""
    found: Found

    def __len__(self) -> int:
        return int(self.image_ids.size)

    def positions(self, image_ids: Sequence[int]) -> Int64Array:
        """Where in these arrays some images stand; -1 for one that nobody labelled."""
        wanted = np.array(image_ids, dtype=np.int64)
        if not self.image_ids.size:
            return np.full(wanted.size, -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.image_ids, wanted), len(self) - 1)
        return np.where(self.image_ids[at] == wanted, at, -1)

    def pairs(self, positions: Int64Array) -> tuple[Int64Array, Int16Array]:
        """(rows, tag ids): every true tag of some images. `rows` are places in `positions`, ascending; -1 has none."""
        rows = np.flatnonzero(positions >= 0)
        starts = self.offsets[positions[rows]]
        sizes = self.offsets[positions[rows] + 1] - starts
        return np.repeat(rows, sizes), self.tag_ids[_ranges(starts, sizes)]

    def given(self, kept: Kept, positions: Int64Array, tags: int) -> npt.NDArray[np.bool_]:
        """In step with `kept.tag_ids`: whether people gave that tag to that image.

        Args:
            positions: of the images of `kept`.
            tags: how many the model has.
        """
        # A table a batch, at most 65 MB, is several times faster than a search for every tag.
        table = np.zeros((len(kept), tags), dtype=np.bool_)
        table[self.pairs(positions)] = True
        given: npt.NDArray[np.bool_] = table[kept.rows, kept.tag_ids]
        return given

    def split(self, share: float) -> tuple["Truth", "Truth"]:
        """(the rest, about a share of the images). The same image falls on the same side every time."""
        # The finaliser of SplitMix64 (Steele, Lea, Flood 2014): neighbouring ids become independent numbers.
        with np.errstate(over="ignore"):
            mixed = self.image_ids.astype(np.uint64) * np.uint64(_MIX[0])
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_MIX[1])
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_MIX[2])
        aside = (mixed >> np.uint64(11)).astype(np.float64) / 2**53 < share
        return self._only(~aside), self._only(aside)

    def _only(self, chosen: npt.NDArray[np.bool_]) -> "Truth":
        starts, sizes = self.offsets[:-1][chosen], np.diff(self.offsets)[chosen]
        return replace(
            self,
            image_ids=self.image_ids[chosen],
            offsets=np.concatenate([[0], np.cumsum(sizes)]),
            tag_ids=self.tag_ids[_ranges(starts, sizes)],
        )


def read_truth(connection: Connection, model: Model, source: str) -> Truth:
    """The tags that people gave, in a file or folder (`db.judging.truth_files`), or in sidecars `beside` the images.

    What is said of an image in several places counts together. Memory: about 100 bytes for an image while reading, 16
    once read, and 2 for each of its tags.

    Raises:
        SourceError: it cannot be read, or speaks of no image that is stored.
    """
    gathered = _Gathered(TagIndex(models.tag_names(connection, model.id)))
    if source == BESIDE:
        _read_beside(connection, model, gathered)
    else:
        index = ImageIndex(connection)
        entries = read_entries(Path(source))
        while some := list(islice(entries, _AT_ONCE)):
            _add(gathered, index, some)
    truth = gathered.truth(source)
    if not len(truth):
        raise SourceError(_nothing(source, truth.found))
    return truth


def describe(truth: Truth) -> list[str]:
    """Sentences on what did not fit."""
    found = truth.found
    lines = []
    if misfits := [
        f"{number:,} {words}"
        for number, words in (
            (found.unmatched, "are of no image in the database"),
            (found.ambiguous, "may mean several images"),
            (found.unreadable, "cannot be read as text"),
        )
        if number
    ]:
        lines.append(f"Left out of {found.entries:,} references: {', '.join(misfits)} ({', '.join(found.examples)}).")
    if found.unknown:
        shown = ", ".join(f"{name} ({times:,})" for name, times in found.unknown[:_EXAMPLES])
        more = f" and {len(found.unknown) - _EXAMPLES:,} more" if len(found.unknown) > _EXAMPLES else ""
        lines.append(f"{len(found.unknown):,} tags are not the model's and do not count: {shown}{more}.")
    return lines


class _Gathered:
    """Grows while files are read: records of (image, number of tags), and the tags of all records."""

    def __init__(self, index: TagIndex) -> None:
        self._index = index
        self._image_ids, self._sizes, self._tag_ids = array("q"), array("q"), array("h")
        self._unknown: Counter[str] = Counter()
        self._misfits: Counter[str] = Counter()
        self._examples: list[str] = []
        self._entries = 0

    def add(self, image_ids: Iterable[int], tags: Iterable[str]) -> None:
        """An entry, for one image or for all copies of it."""
        self._entries += 1
        tag_ids: list[int] = []
        for tag in tags:
            if found := self._index.find(tag):
                tag_ids += found
            else:
                self._unknown[tag] += 1
        for image_id in image_ids:
            self._image_ids.append(image_id)
            self._sizes.append(len(tag_ids))
            self._tag_ids.extend(tag_ids)

    def leave_out(self, why: str, text: str) -> None:
        """An entry that counts for no image. `why` is a field of `Found`."""
        self._entries += 1
        self._misfits[why] += 1
        if len(self._examples) < _EXAMPLES:
            self._examples.append(text)

    def truth(self, source: str) -> Truth:
        """All that was gathered, an image once, its tags once each."""
        records = np.array(self._image_ids, dtype=np.int64)
        sizes = np.array(self._sizes, dtype=np.int64)
        starts = np.cumsum(sizes) - sizes
        tags = np.array(self._tag_ids, dtype=np.int16)
        order = np.argsort(records, kind="stable")
        image_ids, firsts = np.unique(records[order], return_index=True)
        ends = np.append(firsts[1:], order.size)
        counts, parts = np.zeros(image_ids.size, dtype=np.int64), [np.empty(0, dtype=np.int16)]
        for begin in range(0, image_ids.size, _AT_ONCE):
            last = min(begin + _AT_ONCE, image_ids.size)
            some = order[firsts[begin] : ends[last - 1]]
            rows = np.repeat(np.searchsorted(image_ids, records[some]), sizes[some])
            # One number that sorts as image, tag.
            keys = np.unique(rows << 16 | tags[_ranges(starts[some], sizes[some])].astype(np.int64))
            counts[begin:last] = np.bincount((keys >> 16) - begin, minlength=last - begin)
            parts.append((keys & 0x7FFF).astype(np.int16))
        found = Found(
            self._entries, **self._misfits, examples=tuple(self._examples), unknown=tuple(self._unknown.most_common())
        )
        return Truth(source, image_ids, np.concatenate([[0], np.cumsum(counts)]), np.concatenate(parts), found)


def _add(gathered: _Gathered, index: ImageIndex, entries: Sequence[Entry]) -> None:
    places = index.find([entry.reference for entry in entries])
    for entry, ids in zip(entries, places, strict=True):
        if entry.tags is None:
            gathered.leave_out("unreadable", entry.reference.text)
        elif not ids.size:
            gathered.leave_out("unmatched", entry.reference.text)
        elif ids.size > 1 and not entry.reference.content:
            gathered.leave_out("ambiguous", entry.reference.text)
        else:
            gathered.add(ids.tolist(), entry.tags)


def _read_beside(connection: Connection, model: Model, gathered: _Gathered) -> None:
    for image_id, path in _local_images(connection, model):
        for file in (path.with_suffix(SIDECAR), path.with_name(path.name + SIDECAR)):
            if file.exists():
                tags = read_sidecar(file)
                if tags is None:
                    gathered.leave_out("unreadable", os.fspath(file))
                else:
                    gathered.add([image_id], tags)


def _local_images(connection: Connection, model: Model) -> Iterator[tuple[int, Path]]:
    query = (
        select(images.c.id, images.c.uri)
        .join_from(predictions, images, images.c.id == predictions.c.image_id)
        .where(predictions.c.model_id == model.id, begins_with("file://"))
        .execution_options(yield_per=_AT_ONCE)
    )
    for row in connection.execute(query):
        yield row.id, Path(url2pathname(row.uri.removeprefix("file://")))


def _ranges(starts: Int64Array, sizes: Int64Array) -> Int64Array:
    """start, start + 1, ... of each, one behind the other."""
    before = np.cumsum(sizes) - sizes
    steps: Int64Array = np.repeat(starts - before, sizes)
    steps += np.arange(steps.size)
    return steps


def _nothing(source: str, found: Found) -> str:
    if source == BESIDE:
        return f"No {SIDECAR} file lies beside a local image of the database. Name a folder or a file of true tags."
    if not found.entries:
        return f"{source} speaks of no image."
    return (
        f"None of the {found.entries:,} references in {source} means one image of the database, for example "
        f"{', '.join(found.examples)}. They are matched by full uri, by path (relative ones start at the folder of the "
        "file, or are the end of a uri), by md5 in the file name, or by sha256."
    )
