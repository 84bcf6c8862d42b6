"""Some tags of each of many images, in CSR form: what `db.truth.truth` is made of."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from db.read.tag_batches import Int64Array, TagBatch
from db.schema import Int16Array


@dataclass(frozen=True, slots=True)
class Pairs:
    """Image i has the tags from offsets[i] to offsets[i + 1]."""

    offsets: Int64Array
    """(images + 1,)"""
    tag_ids: Int16Array
    """Ascending within an image."""

    def of(self, positions: Int64Array) -> tuple[Int64Array, Int16Array]:
        """(rows, tag ids) of some images. `rows` are places in `positions`, ascending; an image at -1 has none."""
        rows = np.flatnonzero(positions >= 0)
        starts = self.offsets[positions[rows]]
        sizes = self.offsets[positions[rows] + 1] - starts
        return np.repeat(rows, sizes), self.tag_ids[ranges(starts, sizes)]

    def contains(self, kept: TagBatch, positions: Int64Array, tags: int) -> npt.NDArray[np.bool_]:
        """In step with `kept.tag_ids`: whether that tag of that image is one of these.

        Args:
            positions: of the images of `kept`.
            tags: how many the model has.
        """
        # A table a batch, at most 65 MB, is several times faster than a search for every tag.
        table = np.zeros((len(kept), tags), dtype=np.bool_)
        table[self.of(positions)] = True
        found: npt.NDArray[np.bool_] = table[kept.rows, kept.tag_ids]
        return found

    def only(self, chosen: npt.NDArray[np.bool_]) -> "Pairs":
        """Those of some images."""
        starts, sizes = self.offsets[:-1][chosen], np.diff(self.offsets)[chosen]
        return Pairs(offsets_of(sizes), self.tag_ids[ranges(starts, sizes)])


def offsets_of(sizes: Int64Array) -> Int64Array:
    """(images + 1,) from the number of tags of each."""
    return np.concatenate([[0], np.cumsum(sizes)])


def ranges(starts: Int64Array, sizes: Int64Array) -> Int64Array:
    """start, start + 1, ... of each, one behind the other."""
    before = np.cumsum(sizes) - sizes
    steps: Int64Array = np.repeat(starts - before, sizes)
    steps += np.arange(steps.size)
    return steps
