"""What changes between two policies, before anything is written."""

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
    """How many images, and which tags how often."""

    images: int
    """Looked at."""
    changed: int
    """Of these, images that gain or lose a tag."""
    kept: Counts
    """(tags,) images that have the tag under both."""
    gained: Counts
    """(tags,) images that have it under the second policy only."""
    lost: Counts
    """(tags,) images that have it under the first one only."""

    @property
    def by_change(self) -> list[int]:
        """Ids of the tags that change, most changed first."""
        changes = self.gained + self.lost
        order = np.lexsort((np.arange(changes.size), -changes))
        return [tag_id for tag_id in order.tolist() if changes[tag_id]]


def compare(connection: Connection, model: Model, first: Cut, second: Cut, *, under: str = "") -> Comparison:
    """Walk once over all that either keeps.

    Args:
        under: only images whose uri begins with this.
    """
    return compare_batches(read_tag_batches(connection, model, _either(first, second), under=under), first, second)


def compare_batches(batches: Iterable[TagBatch], first: Cut, second: Cut) -> Comparison:
    """The same of images that are here, with all that either keeps."""
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
    """Everything that one of the two may need to see: one threshold, the lower one."""
    return Cut(np.full(first.scores.size, min(first.lowest, second.lowest), dtype=np.int16), first.floor)
