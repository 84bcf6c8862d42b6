"""Where `db.truth.truth` comes from: files and folders, captions beside the images, labels in the database."""

import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, select

from db.errors import SourceError
from db.ledger import models
from db.ledger.models import Model
from db.names.match_images import ImageIndex, by_path
from db.names.match_tags import TagIndex
from db.names.plural import counted
from db.names.spellings import composed, shown
from db.names.uris import file_path
from db.schema import images, predictions
from db.sql.gone_scope import tagged
from db.sql.score_sql import begins_with
from db.truth import labels
from db.truth.pairs import Pairs, offsets_of, ranges
from db.truth.truth import Found, Truth
from db.truth.truth_files import SIDECAR, Entry, read_entries, read_sidecar

BESIDE = "beside"
"""Read the sidecars next to the local images of the database."""
LABELS = "labels"
"""Read what people judged by hand."""

_AT_ONCE = 10_000
"""Entries looked up, or images put in order, in one go."""
_EXAMPLES = 3
_NEARLY_ALL, _NEARLY_NONE = 0.98, 0.1
"""A truth is refused where more than this share of the tags that it gives is unknown, and it names less than this share
of the model's tags. The second is for models of few tags, which know little of a long caption."""


def read_truth(connection: Connection, model: Model, source: str) -> Truth:
    """The tags that people gave, in a file or folder (`db.truth.truth_files`), in sidecars `beside` the images, or in
    `labels`.

    What is said of an image in several places counts together. Memory: about 100 bytes for an image while reading, 16
    once read, and 2 for each of its tags.

    Raises:
        SourceError: it cannot be read, speaks of no image that is stored, or gives nearly no tag of the model.
    """
    if source == LABELS:
        return _of_labels(connection, model)
    tags = models.tag_names(connection, model.id)
    gathered = _Gathered(TagIndex(tags))
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
    _need_known_tags(model, len(tags), truth, gathered.known)
    return truth


def describe(truth: Truth) -> list[str]:
    """Sentences on what did not fit."""
    found = truth.found
    lines = []
    if misfits := [
        f"{number:,} {words}"
        for number, words in (
            (found.unmatched, "of no image in the database"),
            (found.ambiguous, "that may mean several images"),
            (found.unreadable, "that cannot be read as text"),
        )
        if number
    ]:
        lines.append(
            f"Left out of {counted(found.entries, 'reference')}: {', '.join(misfits)} ({', '.join(found.examples)})."
        )
    if found.spaced:
        lines.append(
            f"{counted(found.spaced, 'text')} without commas read as tags between spaces, as that of "
            f"{found.spaced_example}."
        )
    if found.unknown:
        one = len(found.unknown) == 1
        what = "is not the model's and does" if one else "are not the model's and do"
        lines.append(f"{counted(len(found.unknown), 'tag')} {what} not count: {_some_of(found.unknown)}.")
    if found.undecided:
        lines.append(
            f"{found.undecided:,} more were judged and do not count: their file has changed, or as many people say "
            "right as wrong."
        )
    return lines


def _some_of(unknown: Sequence[tuple[str, int]]) -> str:
    names = ", ".join(f"{name} ({times:,})" for name, times in unknown[:_EXAMPLES])
    return names + (f" and {len(unknown) - _EXAMPLES:,} more" if len(unknown) > _EXAMPLES else "")


def _need_known_tags(model: Model, tags: int, truth: Truth, known: int) -> None:
    """Refuse what is not tags of the model: every figure would be about tags that the truth does not give.

    Raises:
        SourceError: nearly all of what is given is unknown.
    """
    unknown = sum(times for _, times in truth.found.unknown)
    named = np.unique(truth.tag_ids).size
    if unknown and (not known or (unknown > _NEARLY_ALL * (known + unknown) and named < _NEARLY_NONE * tags)):
        raise SourceError(
            f"{unknown:,} of {counted(known + unknown, 'tag')} in {truth.source} are not among the {tags:,} of "
            f"{model.name}, for example {_some_of(truth.found.unknown)}. Tags stand between commas or on lines of "
            "their own; between spaces under tag_string. If they do, they are another model's: choose it with --model."
        )


class _Gathered:
    """Grows while files are read: records of (image, number of tags), and the tags of all records."""

    def __init__(self, index: TagIndex) -> None:
        self._index = index
        self._image_ids, self._sizes, self._tag_ids = array("q"), array("q"), array("h")
        self._unknown: Counter[str] = Counter()
        self._misfits: Counter[str] = Counter()
        self._examples: list[str] = []
        self._entries = 0
        self._spaced = 0
        self._spaced_example = ""
        self.known = 0
        """How often a tag of the model was given."""

    def add(self, image_ids: Iterable[int], entry: Entry) -> None:
        """An entry, for one image or for all copies of it."""
        self._entries += 1
        tag_ids: list[int] = []
        for tag in self._split(entry):
            if found := self._index.find(tag):
                tag_ids += found
                self.known += 1
            else:
                self._unknown[shown(tag)] += 1
        for image_id in image_ids:
            self._image_ids.append(image_id)
            self._sizes.append(len(tag_ids))
            self._tag_ids.extend(tag_ids)

    def _split(self, entry: Entry) -> Iterator[str]:
        """The tags of an entry. A text without commas is split at its spaces where it is no tag and its words are.

        Boorus write `tags` so, and know tags that the model does not; in a sentence few words are tags.
        """
        for tag in entry.tags or ():
            words = tag.split() if tag in entry.loose and not self._index.find(tag) else []
            tags = sum(bool(self._index.find(word)) for word in words)
            if tags and (tags == len(words) or tags > max(1, len(words) // 2)):
                self._spaced += 1
                self._spaced_example = self._spaced_example or shown(entry.reference.text)
                yield from words
            else:
                yield tag

    def leave_out(self, why: str, text: str) -> None:
        """An entry that counts for no image. `why` is a field of `Found`."""
        self._entries += 1
        self._misfits[why] += 1
        if len(self._examples) < _EXAMPLES:
            self._examples.append(shown(text))

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
            keys = np.unique(rows << 16 | tags[ranges(starts[some], sizes[some])].astype(np.int64))
            counts[begin:last] = np.bincount((keys >> 16) - begin, minlength=last - begin)
            parts.append((keys & 0x7FFF).astype(np.int16))
        found = Found(
            self._entries,
            unmatched=self._misfits["unmatched"],
            ambiguous=self._misfits["ambiguous"],
            unreadable=self._misfits["unreadable"],
            examples=tuple(self._examples),
            unknown=tuple(self._unknown.most_common()),
            spaced=self._spaced,
            spaced_example=self._spaced_example,
        )
        return Truth(source, image_ids, offsets_of(counts), np.concatenate(parts), found)


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
            gathered.add(ids.tolist(), entry)


def _read_beside(connection: Connection, model: Model, gathered: _Gathered) -> None:
    for image_id, path in _local_images(connection, model):
        for name in (path.stem + SIDECAR, path.name + SIDECAR):
            # A Mac may have written the accents of the name as characters of their own.
            file = next((file for one in composed(name) if (file := path.with_name(one)).exists()), None)
            if file is None:
                continue
            entry = read_sidecar(file, by_path(os.fspath(file), file.parent))
            if entry.tags is None:
                gathered.leave_out("unreadable", os.fspath(file))
            else:
                gathered.add([image_id], entry)


def _local_images(connection: Connection, model: Model) -> Iterator[tuple[int, Path]]:
    query = (
        select(images.c.id, images.c.uri)
        .join_from(predictions, images, images.c.id == predictions.c.image_id)
        .where(tagged(connection, model.id), begins_with("file://"))
        .execution_options(yield_per=_AT_ONCE)
    )
    for row in connection.execute(query):
        yield row.id, Path(file_path(row.uri))


def _of_labels(connection: Connection, model: Model) -> Truth:
    verdicts = labels.every(connection, model)
    image_ids, firsts, sizes = np.unique(verdicts.image_ids, return_index=True, return_counts=True)
    if not image_ids.size:
        raise SourceError(
            f"Nobody has judged a tag of {model.name} yet, or the files have changed since. `tagonce review` shows "
            "pictures to judge."
        )
    right = np.add.reduceat(verdicts.right, firsts, dtype=np.int64)
    found = Found(
        entries=int(verdicts.tag_ids.size),
        unknown=tuple(verdicts.unknown.items()),
        undecided=verdicts.undecided,
        drawn=tuple(verdicts.drawn.items()),
    )
    return Truth(
        LABELS,
        image_ids,
        offsets_of(right),
        verdicts.tag_ids[verdicts.right],
        found,
        Pairs(offsets_of(sizes), verdicts.tag_ids),
    )


def _nothing(source: str, found: Found) -> str:
    if source == BESIDE:
        return f"No {SIDECAR} file lies beside a local image of the database. Name a folder or a file of true tags."
    if not found.entries:
        return f"{source} speaks of no image."
    return (
        f"None of {counted(found.entries, 'reference')} in {source} means one image of the database, for example "
        f"{', '.join(found.examples)}. They are matched by full uri, by path (relative ones start at the folder of the "
        "file, or are the end of a uri), by md5 in the file name, or by sha256."
    )
