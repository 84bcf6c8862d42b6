"""The images and tags that differ between two policies."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from db.arrays.types import Int16Array
from db.ledger.models import Model
from db.policy.policies import Cut
from db.postings import counts, lookup
from db.postings.block_format import BLOCK
from db.postings.state import in_blocks
from db.read.tag_batches import TagBatch, kept_mask, read_tag_batches

Counts = npt.NDArray[np.int64]

_BLOCKS_AT_ONCE = 4
"""With all tags, a block has some millions of postings."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Number of images that change, and changes of each tag."""

    images: int
    """Images compared."""
    changed: int
    """Images that gain or lose a tag."""
    kept: Counts
    """(tags,) images that have the tag under both policies."""
    gained: Counts
    """(tags,) images that have the tag under the second policy only."""
    lost: Counts
    """(tags,) images that have the tag under the first policy only."""

    @property
    def by_change(self) -> list[int]:
        """Ids of the tags that change, most changed first."""
        changes = self.gained + self.lost
        order = np.lexsort((np.arange(changes.size), -changes))
        return [tag_id for tag_id in order.tolist() if changes[tag_id]]


def compare(connection: Connection, model: Model, first: Cut, second: Cut, *, under: str = "") -> Comparison:
    """Compare two policies on all images.

    Args:
        under: only images whose uri begins with this prefix.
    """
    both = _either(first, second)
    plan = counts.plan(connection, model.id)
    if under or plan is None or both.lowest < plan.state.floor or first.has_rules or second.has_rules:
        return compare_batches(read_tag_batches(connection, model, both, under=under), first, second)
    lows, highs = np.minimum(first.scores, second.scores), np.maximum(first.scores, second.scores)
    kept, before, after = (
        counts.sums_of_tags(connection, model, scores).images for scores in (highs, first.scores, second.scores)
    )
    changed = sum(
        _changed_images(connection, model.id, blocks, lows, highs)
        for blocks in lookup.neighbours(plan.state.current, _BLOCKS_AT_ONCE)
    )
    rows = read_tag_batches(connection, model, both, where=in_blocks(plan.state.changed))
    changed += compare_batches(rows, first, second).changed
    return Comparison(counts.number_of_images(connection, model.id, plan), changed, kept, after - kept, before - kept)


def _changed_images(
    connection: Connection, model_id: int, blocks: Sequence[int], lows: Int16Array, highs: Int16Array
) -> int:
    """The images in some blocks that have a tag with low <= score < high.

    Args:
        blocks: neighbours whose postings are current.
        lows, highs: (tags,)
    """
    moved = np.flatnonzero(lows < highs)
    if not moved.size:
        return 0
    lowest = int(lows[moved].min())
    postings = lookup.read_postings(connection, model_id, moved.tolist(), blocks, lowest)
    low, high = (_of_each(postings, ends, moved) for ends in (lows, highs))
    changed = np.zeros(len(blocks) * BLOCK, dtype=np.bool_)
    changed[postings.images[(postings.scores >= low) & (postings.scores < high)]] = True
    return int(np.count_nonzero(changed & lookup.read_present(connection, model_id, blocks)))


def compare_batches(batches: Iterable[TagBatch], first: Cut, second: Cut) -> Comparison:
    """Compare two policies on given images. The batches hold at least the tags that either policy keeps."""
    tags = first.scores.size
    counts = np.zeros((3, tags), dtype=np.int64)
    images = changed = 0
    for batch in batches:
        one, other = kept_mask(batch, first), kept_mask(batch, second)
        masks = (one & other, other & ~one, one & ~other)
        counts += [np.bincount(batch.tag_ids[mask], minlength=tags) for mask in masks]
        images += len(batch)
        changed += int(np.count_nonzero(np.bincount(batch.rows[one != other])))
    return Comparison(images, changed, *counts)


def _of_each(postings: lookup.TagPostings, ends: Int16Array, moved: npt.NDArray[np.integer]) -> Any:
    """The end of the range of each posting; one number if all tags have the same."""
    if (ends[moved] == ends[moved[0]]).all():
        return ends[moved[0]]
    return np.repeat(ends[postings.tag_ids], postings.sizes)


def _either(first: Cut, second: Cut) -> Cut:
    """A cut that keeps all tags that either may need: a single threshold, the lower one of the two."""
    return Cut(np.full(first.scores.size, min(first.lowest, second.lowest), dtype=np.int16), first.floor)
