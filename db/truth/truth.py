"""Ground truth: the tags that people gave to images that a model has tagged, as arrays.

For an image from a file, all tags are known: a tag that is not given is absent. Labels (`db.truth.labels`) are about
single tags: a tag without a label is unknown.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from db.arrays.splitmix64 import GAMMA, splitmix64
from db.arrays.types import Int32Array, Int64Array
from db.read.tag_batches import TagBatch
from db.truth.pairs import Pairs


@dataclass(frozen=True, slots=True)
class Found:
    """How the entries of a source matched the images and tags in the database."""

    entries: int = 0
    """Entries that name an image: files, lines, runs of rows."""
    unmatched: int = 0
    """Entries whose image is not in the database."""
    ambiguous: int = 0
    """Entries that may mean several images. Their tags are ignored."""
    unreadable: int = 0
    """Entries that are not text."""
    examples: tuple[str, ...] = ()
    """Some of the unmatched, ambiguous and unreadable entries."""
    unknown: tuple[tuple[str, int], ...] = ()
    """Tags that the model does not have and how often they were given, most frequent first."""
    spaced: int = 0
    """Texts without commas that were split at spaces."""
    spaced_example: str = ""
    """The image of the first of these texts."""
    undecided: int = 0
    """Labels only: judged tags of images that do not count (`db.truth.labels`)."""
    drawn: tuple[tuple[str, int], ...] = ()
    """Labels only: (way in which images were drawn, number of labels)."""


@dataclass(frozen=True, slots=True)
class Truth:
    """Images and their true tags. The tags of image i are tag_ids[offsets[i] : offsets[i + 1]]."""

    source: str
    """A path, `beside` or `labels`."""
    image_ids: Int64Array
    """(labelled images,) ascending."""
    offsets: Int64Array
    """(labelled images + 1,)"""
    tag_ids: Int32Array
    """(pairs,) ascending within an image."""
    found: Found
    judged: Pairs | None = None
    """The tags of each image that are known, true or not; None: all tags are."""

    def __len__(self) -> int:
        return int(self.image_ids.size)

    def positions(self, image_ids: Sequence[int]) -> Int64Array:
        """(images,) indices into `image_ids`; -1 for an image without truth."""
        wanted = np.array(image_ids, dtype=np.int64)
        if not self.image_ids.size:
            return np.full(wanted.size, -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.image_ids, wanted), len(self) - 1)
        return np.where(self.image_ids[at] == wanted, at, -1)

    def pairs(self, positions: Int64Array) -> tuple[Int64Array, Int32Array]:
        """The true tags of some images, as `Pairs.of` returns them."""
        return self._given.of(positions)

    def given(self, batch: TagBatch, positions: Int64Array, tags: int) -> npt.NDArray[np.bool_]:
        """Whether people gave each tag of a batch; shapes as in `Pairs.contains`.

        Args:
            positions: (images,) of the images of the batch, from `positions`.
            tags: number of tags of the model.
        """
        return self._given.contains(batch, positions, tags)

    def known(self, batch: TagBatch, positions: Int64Array, tags: int) -> npt.NDArray[np.bool_]:
        """Whether the truth of each tag of a batch is known; arguments as in `given`."""
        if self.judged is not None:
            return self.judged.contains(batch, positions, tags)
        known: npt.NDArray[np.bool_] = (positions >= 0)[batch.rows]
        return known

    def split(self, share: float) -> tuple["Truth", "Truth"]:
        """(the rest, about a share of the images). The same image falls on the same side every time."""
        # Neighbouring ids get independent numbers: image n gets number n of a generator that starts at 0.
        numbers = splitmix64((self.image_ids.astype(np.uint64) - np.uint64(1)) * GAMMA)
        aside = (numbers >> np.uint64(11)).astype(np.float64) / 2**53 < share
        return self._only(~aside), self._only(aside)

    @property
    def _given(self) -> Pairs:
        return Pairs(self.offsets, self.tag_ids)

    def _only(self, chosen: npt.NDArray[np.bool_]) -> "Truth":
        given = self._given.only(chosen)
        return replace(
            self,
            image_ids=self.image_ids[chosen],
            offsets=given.offsets,
            tag_ids=given.tag_ids,
            judged=None if self.judged is None else self.judged.only(chosen),
        )
