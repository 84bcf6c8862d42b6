"""The scores of some images."""

from dataclasses import dataclass

import numpy as np

from db.arrays.types import Int16Array, Int32Array, Int64Array


@dataclass(frozen=True, slots=True)
class ScoreBatch:
    """The scores of some images, without their ids."""

    counts: Int64Array
    """(images,) number of scores of each image."""
    tag_ids: Int32Array
    """(scores,)"""
    scores: Int16Array
    """(scores,) ten-thousandths, parallel to `tag_ids`, ascending within an image."""

    def __len__(self) -> int:
        return int(self.counts.size)

    @property
    def rows(self) -> Int64Array:
        """(scores,) the position of each score's image in this batch."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.counts)
