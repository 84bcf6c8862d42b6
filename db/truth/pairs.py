"""Sets of tags of many images, as a compressed sparse row (CSR) matrix, for `db.truth.truth`."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from db.arrays.csr import offsets_of, ranges
from db.arrays.types import Int32Array, Int64Array
from db.read.tag_batches import TagBatch


@dataclass(frozen=True, slots=True)
class Pairs:
    """The tags of image i are tag_ids[offsets[i] : offsets[i + 1]]."""

    offsets: Int64Array
    """(images + 1,)"""
    tag_ids: Int32Array
    """(pairs,) ascending within an image."""

    def of(self, positions: Int64Array) -> tuple[Int64Array, Int32Array]:
        """The pairs of some images, as (rows, tag ids) of shape (pairs,).

        Args:
            positions: (images,) indices of images; -1 is an image without tags.

        Returns:
            `rows` are indices into `positions`, ascending.
        """
        rows = np.flatnonzero(positions >= 0)
        starts = self.offsets[positions[rows]]
        sizes = self.offsets[positions[rows] + 1] - starts
        return np.repeat(rows, sizes), self.tag_ids[ranges(starts, sizes)]

    def contains(self, batch: TagBatch, positions: Int64Array, tags: int) -> npt.NDArray[np.bool_]:
        """Whether each tag of a batch is one of these pairs; the shape is that of `batch.tag_ids`.

        Args:
            positions: (images,) the index of each image of the batch, as for `of`.
            tags: number of tags of the model.
        """
        # A dense table per batch, at most 262 MB, is several times faster than a search for every tag.
        table = np.zeros((len(batch), tags), dtype=np.bool_)
        table[self.of(positions)] = True
        found: npt.NDArray[np.bool_] = table[batch.rows, batch.tag_ids]
        return found

    def only(self, chosen: npt.NDArray[np.bool_]) -> "Pairs":
        """The pairs of the images for which the mask `chosen`, (images,), is true."""
        starts, sizes = self.offsets[:-1][chosen], np.diff(self.offsets)[chosen]
        return Pairs(offsets_of(sizes), self.tag_ids[ranges(starts, sizes)])
