"""The images and tags that differ between two policies."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from db.ledger.models import Model
from db.policy.policies import Cut
from db.read.tag_batches import TagBatch, kept_mask, read_tag_batches

Counts = npt.NDArray[np.int64]


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
    """Compare two policies in one pass over the tags that either keeps.

    Args:
        under: only images whose uri begins with this prefix.
    """
    return compare_batches(read_tag_batches(connection, model, _either(first, second), under=under), first, second)


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


def _either(first: Cut, second: Cut) -> Cut:
    """A cut that keeps all tags that either may need: a single threshold, the lower one of the two."""
    return Cut(np.full(first.scores.size, min(first.lowest, second.lowest), dtype=np.int16), first.floor)
