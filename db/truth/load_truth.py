"""Load a `Truth` from files and folders, captions beside the images, or labels in the database."""

import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, select

from db.arrays.csr import offsets_of, ranges
from db.errors import SourceError
from db.ledger import models
from db.ledger.models import Model
from db.names.match_images import ImageIndex, by_path
from db.names.match_tags import TagIndex
from db.names.plural import counted
from db.names.spellings import composed, shown
from db.names.uris import file_path
from db.schema import images, predictions
from db.scores import TAG_ID_BITS
from db.sql.gone_scope import tagged
from db.sql.scores.score_sql import begins_with
from db.truth import labels
from db.truth.pairs import Pairs
from db.truth.truth import Found, Truth
from db.truth.truth_files import SIDECAR, Entry, read_entries, read_sidecar

BESIDE = "beside"
"""Source: the sidecars next to the local images of the database."""
LABELS = "labels"
"""Source: the labels in the database."""

_AT_ONCE = 10_000
"""Entries looked up, or images sorted, at once."""
_EXAMPLES = 3
_NEARLY_ALL, _NEARLY_NONE = 0.98, 0.1
"""A truth is refused if more than the first fraction of its tags is unknown, and it has less than the second fraction
of the model's tags. The second condition is for models of few tags, which know few words of a long caption."""


def read_truth(connection: Connection, model: Model, source: str) -> Truth:
    """Read the tags that people gave, and match them with the images and tags in the database.

    Several entries of an image are merged. Memory: about 100 bytes per image while reading, 16 afterwards, and 2 bytes
    per tag of an image.

    Args:
        model: its tags are matched by `TagIndex`.
        source: a file or folder (`db.truth.truth_files`), `beside` or `labels`.

    Returns:
        A truth of at least one image; (images,) ids and (pairs,) tag ids. `describe` reports other entries.

    Raises:
        SourceError: the source cannot be read, none of its entries is an image in the database, or nearly none of its
            tags is a tag of the model.
    """
    if source == LABELS:
        return _of_labels(connection, model)
    tags = models.tag_names(connection, model.id)
    builder = _TruthBuilder(TagIndex(tags))
    if source == BESIDE:
        _read_beside(connection, model, builder)
    else:
        index = ImageIndex(connection)
        entries = read_entries(Path(source))
        while some := list(islice(entries, _AT_ONCE)):
            _add(builder, index, some)
    truth = builder.truth(source)
    if not len(truth):
        raise SourceError(_no_image(source, truth.found))
    _need_known_tags(model, len(tags), truth, builder.known)
    return truth


def describe(truth: Truth) -> list[str]:
    """Report, in sentences, the entries, texts and tags that did not match."""
    found = truth.found
    lines = []
    if misfits := [
        f"{number:,} {words}"
        for number, words in (
            (found.unmatched, "not in the database"),
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
            f"{counted(found.spaced, 'text')} without commas read as tags between spaces, for example that of "
            f"{found.spaced_example}."
        )
    if found.unknown:
        lines.append(
            f"{counted(len(found.unknown), 'tag')} ignored, which the model does not have: {_some_of(found.unknown)}."
        )
    if found.undecided:
        lines.append(
            f"{counted(found.undecided, 'judged tag')} ignored: the file has changed, or as many people say right as "
            "wrong."
        )
    return lines


def _some_of(unknown: Sequence[tuple[str, int]]) -> str:
    names = ", ".join(f"{name} ({times:,})" for name, times in unknown[:_EXAMPLES])
    return names + (f" and {len(unknown) - _EXAMPLES:,} more" if len(unknown) > _EXAMPLES else "")


def _need_known_tags(model: Model, tags: int, truth: Truth, known: int) -> None:
    """Refuse a truth of other tags than the model's: every metric would be about tags that it does not give.

    Args:
        tags: number of tags of the model.
        known: how often a tag of the model was given.

    Raises:
        SourceError: nearly all given tags are unknown.
    """
    unknown = sum(times for _, times in truth.found.unknown)
    named = np.unique(truth.tag_ids).size
    if unknown and (not known or (unknown > _NEARLY_ALL * (known + unknown) and named < _NEARLY_NONE * tags)):
        raise SourceError(
            f"{unknown:,} of {counted(known + unknown, 'tag')} in {truth.source} are not among the {tags:,} of "
            f"{model.name}, for example {_some_of(truth.found.unknown)}. Separate tags by commas or lines, in "
            "tag_string by spaces. If they are, select the model that has these tags with --model."
        )


class _TruthBuilder:
    """Collects entries: records of (image id, number of tags), and the tag ids of all records."""

    def __init__(self, index: TagIndex) -> None:
        self._index = index
        self._image_ids, self._sizes, self._tag_ids = array("q"), array("q"), array("i")
        self._unknown: Counter[str] = Counter()
        self._misfits: Counter[str] = Counter()
        self._examples: list[str] = []
        self._entries = 0
        self._spaced = 0
        self._spaced_example = ""
        self.known = 0
        """Number of given tags that the model has."""

    def add(self, image_ids: Iterable[int], entry: Entry) -> None:
        """Add an entry of an image, or of all its copies."""
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
        """The tags of an entry. A text without commas is split at spaces if it is not a tag and most of its words are.

        Boorus write `tags` between spaces, and have tags that the model lacks. Few words of a sentence are tags.
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
        """Count an entry that matches no image.

        Args:
            why: the field of `Found` that counts it.
            text: an example for messages.
        """
        self._entries += 1
        self._misfits[why] += 1
        if len(self._examples) < _EXAMPLES:
            self._examples.append(shown(text))

    def truth(self, source: str) -> Truth:
        """Merge the records by image; each tag of an image occurs once."""
        records = np.array(self._image_ids, dtype=np.int64)
        sizes = np.array(self._sizes, dtype=np.int64)
        starts = np.cumsum(sizes) - sizes
        tags = np.array(self._tag_ids, dtype=np.int32)
        order = np.argsort(records, kind="stable")
        image_ids, firsts = np.unique(records[order], return_index=True)
        stops = np.append(firsts[1:], order.size)
        counts, parts = np.zeros(image_ids.size, dtype=np.int64), [np.empty(0, dtype=np.int32)]
        for begin in range(0, image_ids.size, _AT_ONCE):
            last = min(begin + _AT_ONCE, image_ids.size)
            some = order[firsts[begin] : stops[last - 1]]
            rows = np.repeat(np.searchsorted(image_ids, records[some]), sizes[some])
            # Keys that sort by image, then tag.
            keys = np.unique(rows << TAG_ID_BITS | tags[ranges(starts[some], sizes[some])].astype(np.int64))
            counts[begin:last] = np.bincount((keys >> TAG_ID_BITS) - begin, minlength=last - begin)
            parts.append((keys & (1 << TAG_ID_BITS) - 1).astype(np.int32))
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


def _add(builder: _TruthBuilder, index: ImageIndex, entries: Sequence[Entry]) -> None:
    matches = index.find([entry.reference for entry in entries])
    for entry, ids in zip(entries, matches, strict=True):
        if entry.tags is None:
            builder.leave_out("unreadable", entry.reference.text)
        elif not ids.size:
            builder.leave_out("unmatched", entry.reference.text)
        elif ids.size > 1 and not entry.reference.content:
            builder.leave_out("ambiguous", entry.reference.text)
        else:
            builder.add(ids.tolist(), entry)


def _read_beside(connection: Connection, model: Model, builder: _TruthBuilder) -> None:
    for image_id, path in _local_images(connection, model):
        for name in (path.stem + SIDECAR, path.name + SIDECAR):
            # macOS may have written accents as combining characters.
            file = next((file for one in composed(name) if (file := path.with_name(one)).exists()), None)
            if file is None:
                continue
            entry = read_sidecar(file, by_path(os.fspath(file), file.parent))
            if entry.tags is None:
                builder.leave_out("unreadable", os.fspath(file))
            else:
                builder.add([image_id], entry)


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
    found = labels.every(connection, model)
    image_ids, firsts, sizes = np.unique(found.image_ids, return_index=True, return_counts=True)
    if not image_ids.size:
        raise SourceError(
            f"There are no labels of tags of {model.name}, or the files have changed since. Judge pictures in `tagonce "
            "review`."
        )
    right = np.add.reduceat(found.right, firsts, dtype=np.int64)
    return Truth(
        LABELS,
        image_ids,
        offsets_of(right),
        found.tag_ids[found.right],
        Found(
            entries=int(found.tag_ids.size),
            unknown=tuple(found.unknown.items()),
            undecided=found.undecided,
            drawn=tuple(found.drawn.items()),
        ),
        Pairs(offsets_of(sizes), found.tag_ids),
    )


def _no_image(source: str, found: Found) -> str:
    if source == BESIDE:
        return f"No local image of the database has a {SIDECAR} file beside it. Give a folder or a file of true tags."
    if not found.entries:
        return f"{source} names no image."
    return (
        f"None of {counted(found.entries, 'reference')} in {source} matches exactly one image of the database, for "
        f"example {', '.join(found.examples)}. References are matched by full uri, by path (relative to the folder of "
        "the file, or the end of a uri), by md5 in the file name, or by sha256."
    )
