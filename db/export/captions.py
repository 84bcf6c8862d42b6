"""Captions: which tags of an image are written, under which names, in which order.

The options apply in this order:

 1. Policy: the tags that the cut keeps (`db.policy.policies`). It does not apply to a category, `rating` or `quality`,
    that is placed first or last: of that category the most probable stored tag is taken, ties by the model's list.
 2. Replace: a tag with a rule for its name gets the new name. An empty new name drops the tag.
 3. Expand: `name_(series)` of category character becomes `name`, a character, and `series`, a copyright, in this order.
    Rules of step 2 apply to each of the two; the new names are not expanded again.
 4. Drop: ratings and qualities with placement `none`; tags that an exclude matches by their own name, by the name after
    step 2, or by the name after step 3; tags equal to a fixed text; tags with a blank name.
 5. Spell: the underscore rule, line ends as spaces, then the prefix `category:`, then escaping.
 6. Duplicates, equal as spelt so far: a placed tag stays, else the most probable one, also of two placed tags; ties by
    the model's list.
 7. Max tags: pinned tags as listed, then the most probable ones, ties by the model's list, up to that number. Placed
    tags are not counted.
 8. Order: fixed texts, pinned tags as listed, the rating and then the quality if they are first, the tags by category
    order, the quality and then the rating if they are last, fixed texts. Within each of these by `sort`, then by
    falling score, then by the model's list.
 9. Score: `(tag:0.9123)`, rounded down to four decimals, without trailing zeros. Fixed texts have none.
10. The separator, between them.

Steps 2 to 5 are done once for each tag of the model (`db.export.items`), and so are the texts of the last two. For a
batch of images numpy does steps 1 and 6 to 8, and orders the pieces of text, which one `join` makes a text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from zlib import crc32

import numpy as np
import numpy.typing as npt

from db.arrays.csr import offsets_of
from db.arrays.splitmix64 import splitmix64
from db.arrays.types import Int16Array, Int64Array, UInt64Array
from db.export.items import NAMESPACES, make_items, one_line
from db.export.options import CaptionOptions, Sort
from db.ledger.models import Tag
from db.policy.policies import Cut
from db.read import tag_batches
from db.read.tag_batches import TagBatch
from db.scores import SCALE

_SORT_BITS = 32
"""Bits of a sort key: a position in the model's list, or a hash."""


@dataclass(frozen=True, slots=True)
class Written:
    """The items of the captions of some images, in order."""

    offsets: Int64Array
    """(images + 1,)"""
    items: Int64Array
    """Indices into `Captioner.texts` and `Captioner.categories`."""
    scores: Int16Array

    @property
    def rows(self) -> Int64Array:
        """(items,) the position of the image of each item."""
        return np.repeat(np.arange(self.offsets.size - 1, dtype=np.int64), np.diff(self.offsets))

    def only(self, chosen: npt.NDArray[np.bool_]) -> "Written":
        """The same images with some of the items."""
        before = offsets_of(chosen)
        return Written(before[self.offsets], self.items[chosen], self.scores[chosen])


class Captioner:
    """Writes captions for batches of `read_tag_batches(..., captioner.reading)`.

    Args:
        tags: of the model, by output position.
        cut: which tags to keep.
        namespaces: see `make_items`.
        encode: applied to each piece of text, and so must work character by character: escaping for JSON.

    Raises:
        SettingsError: the options ask for a category that the model lacks.
    """

    def __init__(
        self,
        options: CaptionOptions,
        tags: Sequence[Tag],
        cut: Cut,
        *,
        namespaces: Mapping[str, str] = NAMESPACES,
        encode: Callable[[str], str] = str,
    ) -> None:
        self._options = options
        self._cut = cut
        self._items = make_items(tags, options, namespaces)
        numbered: dict[str | None, int] = {category: number for number, category in enumerate(options.placed, start=1)}
        # By tag id: 0, or the number of its placed category.
        self._placed = np.array([numbered.get(tag.category, 0) for tag in tags], dtype=np.int8)
        self._has_placed = bool(self._placed.any())
        counts = np.diff(self._items.starts)
        self._dropped = counts == 0
        self._expands = bool((counts > 1).any())
        numbers = self._items.text_numbers
        self._shared = np.bincount(numbers, minlength=numbers.size)[numbers] > 1
        self._sorts = options.sort is not Sort.SCORE or bool(self._items.groups.any())
        self._separator = encode(options.separator)
        self._prepend, self._append = (
            [encode(one_line(text)) for text in texts if text] for texts in (options.prepend, options.append)
        )
        texts = [encode(text) for text in self._items.texts]
        self._suffixes: list[str] = []
        if options.score_suffix:
            texts = [f"({text}" for text in texts]
            self._suffixes = [f":{score_text(score)})" for score in range(SCALE + 1)]
        # Each tag without and with a separator in front, the suffixes, the fixed texts before and after the tags.
        ends = [self._separator.join(self._prepend), self._separator.join(self._append)]
        behind = [self._separator + text for text in (*texts, ends[1])]
        self.fragments = np.array([*texts, *behind[:-1], *self._suffixes, *ends, behind[-1]], dtype=object)

    @property
    def texts(self) -> list[str]:
        """(items,) as written, without their scores."""
        return self._items.texts

    @property
    def categories(self) -> list[str | None]:
        """(items,) None for a tag without one."""
        return self._items.categories

    @property
    def reading(self) -> Cut:
        """The cut to read from the database with: it keeps what the policy keeps, and all of the placed categories."""
        cut = self._cut
        if not self._has_placed:
            return cut
        lowered = self._placed > 0 if cut.mcut is None else True
        return Cut(np.where(lowered, cut.floor, cut.scores).astype(np.int16), cut.floor)

    def kept(self, batch: TagBatch) -> TagBatch:
        """The same images with the tags that the policy keeps, before any option."""
        return batch.only(tag_batches.kept_mask(batch, self._cut)) if self._has_placed else batch

    def written(self, batch: TagBatch) -> Written:
        """Steps 1 to 8, for a batch that was read with `reading`."""
        if self._has_placed:
            batch = batch.only(self._policy_and_placed(batch))
        if self._dropped.any():
            batch = batch.only(~self._dropped[batch.tag_ids])
        found = self._named(batch)
        if self._shared.any():
            found = found.only(self._without_duplicates(found))
        if self._options.max_tags is not None:
            found = found.only(self._not_too_many(found, self._options.max_tags))
        return self._sorted(found, batch.uris) if self._sorts else found

    def captions(self, found: Written) -> list[str]:
        """The caption of each image."""
        indices, sizes = self.pieces(found)
        pieces = self.fragments[indices].tolist()
        return ["".join(pieces[start:end]) for start, end in pairwise(offsets_of(sizes).tolist())]

    def pieces(self, found: Written) -> tuple[Int64Array, Int64Array]:
        """The pieces of the captions: joined without a separator they are the text.

        Returns:
            (pieces of all images,) indices into `fragments`, and (images,) the number of pieces of each.
        """
        tags, counts = len(self._items.texts), np.diff(found.offsets)
        each, before, after = 1 + bool(self._suffixes), bool(self._prepend), bool(self._append)
        sizes = counts * each + before + after
        starts = np.cumsum(sizes) - sizes
        positions = np.repeat(starts + before - found.offsets[:-1] * each, counts) + np.arange(counts.sum()) * each
        indices = np.empty(int(sizes.sum()), dtype=np.int64)
        indices[positions] = found.items + tags
        first_end = 2 * tags + len(self._suffixes)
        if self._suffixes:
            indices[positions + 1] = found.scores.astype(np.int64) + 2 * tags
        if before:
            indices[starts] = first_end
        else:
            indices[starts[counts > 0]] -= tags
        if after:
            indices[starts + sizes - 1] = np.where((counts > 0) | before, first_end + 2, first_end + 1)
        return indices, sizes

    def lists(self, found: Written) -> list[list[str]]:
        """The texts that each caption joins."""
        texts = self.fragments[found.items]
        if self._suffixes:
            texts = texts + self.fragments[found.scores.astype(np.int64) + 2 * len(self._items.texts)]
        starts, items = found.offsets.tolist(), texts.tolist()
        return [[*self._prepend, *items[s:e], *self._append] for s, e in pairwise(starts)]

    def _policy_and_placed(self, batch: TagBatch) -> npt.NDArray[np.bool_]:
        placed = self._placed[batch.tag_ids]
        mask: npt.NDArray[np.bool_] = tag_batches.kept_mask(batch, self._cut) & (placed == 0)
        # Scores fall within an image: its first tag of a category is the most probable one.
        positions = np.flatnonzero(placed)
        categories = len(self._options.placed) + 1
        _, firsts = np.unique(batch.rows[positions] * categories + placed[positions], return_index=True)
        mask[positions[firsts]] = True
        return mask

    def _named(self, batch: TagBatch) -> Written:
        starts = self._items.starts
        tag_ids = batch.tag_ids.astype(np.int64)
        if not self._expands:
            return Written(batch.offsets, starts[tag_ids], batch.scores)
        counts = starts[tag_ids + 1] - starts[tag_ids]
        ends = offsets_of(counts)
        part = np.arange(ends[-1]) - np.repeat(ends[:-1], counts)
        items = np.repeat(starts[tag_ids], counts) + part
        return Written(ends[batch.offsets], items, np.repeat(batch.scores, counts))

    def _without_duplicates(self, found: Written) -> npt.NDArray[np.bool_]:
        mask = np.ones(found.items.size, dtype=np.bool_)
        positions = np.flatnonzero(self._shared[found.items])
        items = found.items[positions]
        text = found.rows[positions] * (self._items.text_numbers.size + 1) + self._items.text_numbers[items]
        # By image and text, placed tags first; the sort is stable, so the others stay in falling order.
        order = np.lexsort((~self._items.placed[items], text))
        mask[positions[order[~_first_of_runs(text[order])]]] = False
        return mask

    def _not_too_many(self, found: Written, most: int) -> npt.NDArray[np.bool_]:
        placed = self._items.placed[found.items]
        # Stable: tags that are not pinned stay in falling order, as do those at the same position of the list.
        pinned = self._items.pinned[found.items]
        order = np.lexsort((pinned, found.rows))
        before = offsets_of(~placed[order])
        mask = placed.copy()
        mask[order] |= before[1:] - before[found.offsets[found.rows]] <= most
        return mask

    def _sorted(self, found: Written, uris: Sequence[str]) -> Written:
        groups, rows = self._items.groups, found.rows
        key = rows * (int(groups.max(initial=0)) + 1) + groups[found.items]
        if self._options.sort is not Sort.SCORE:
            key = (key << _SORT_BITS) | self._sort_key(found, rows, uris)
        order = np.argsort(key, kind="stable")
        return Written(found.offsets, found.items[order], found.scores[order])

    def _sort_key(self, found: Written, rows: Int64Array, uris: Sequence[str]) -> Int64Array:
        match self._options.sort:
            case Sort.NAME:
                return self._items.text_numbers[found.items]
            case Sort.SHUFFLE:
                tag_ids = np.searchsorted(self._items.starts, found.items, side="right") - 1
                images = np.array([crc32(uri.encode()) for uri in uris], dtype=np.uint64)
                return shuffle_hash(self._options.seed, images[rows], tag_ids)
            case _:
                return found.items


def shuffle_hash(seed: int, image: UInt64Array, tag_id: Int64Array) -> Int64Array:
    """32 bits of all three: the upper half of splitmix64(splitmix64(seed) ^ (image << 16 | tag id)) for small tag ids.

    Args:
        seed: its lower 64 bits are used.
        image: the CRC-32 of the uri in UTF-8.
    """
    mixed = splitmix64(np.array([seed & (2**64 - 1)], dtype=np.uint64))
    # Bits 16 to 47 are those of the image: the 17th bit of a tag id is above them.
    low, high = tag_id.astype(np.uint64) & np.uint64(0xFFFF), tag_id.astype(np.uint64) >> np.uint64(16)
    both = (high << np.uint64(48)) | (image << np.uint64(16)) | low
    return (splitmix64(mixed ^ both) >> np.uint64(32)).astype(np.int64)


def score_text(score: int) -> str:
    """Four decimals without zeros at the end."""
    return f"{score / SCALE:.4f}".rstrip("0").rstrip(".")


def _first_of_runs(values: Int64Array) -> npt.NDArray[np.bool_]:
    """True where a value differs from the one before it."""
    return np.concatenate([[True], values[1:] != values[:-1]])[: values.size]
