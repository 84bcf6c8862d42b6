"""Truth: the tags that people gave to images that a model has tagged, as arrays that a whole pass is compared with.

Of an image in a file all tags are known: what is not given is not there. Labels (`db.truth.labels`) speak of single
tags, and what nobody judged is neither there nor not there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from db.read.tag_batches import Int64Array, TagBatch
from db.schema import Int16Array
from db.truth.pairs import Pairs

_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class Found:
    """How what was written fitted to what is stored."""

    entries: int = 0
    """Places that speak of an image: files, lines, runs of rows."""
    unmatched: int = 0
    """Of them, those whose image is not in the database."""
    ambiguous: int = 0
    """Of them, those that may mean several images. Their tags count for none."""
    unreadable: int = 0
    """Of them, those that are no text."""
    examples: tuple[str, ...] = ()
    """Some of the unmatched, ambiguous and unreadable ones."""
    unknown: tuple[tuple[str, int], ...] = ()
    """Tags that the model does not have and how often they were given, most frequent first."""
    spaced: int = 0
    """Texts without commas that were split at spaces."""
    spaced_example: str = ""
    """The image of the first of them."""
    undecided: int = 0
    """Of labels: tags of images that were judged and do not count (`db.truth.labels`)."""
    drawn: tuple[tuple[str, int], ...] = ()
    """Of labels: how their pictures were chosen, and how many labels each way brought."""


@dataclass(frozen=True, slots=True)
class Truth:
    """Images and their true tags, in CSR form: image i has the tags from offsets[i] to offsets[i + 1]."""

    source: str
    """Where from, in words."""
    image_ids: Int64Array
    """(labelled images,) ascending."""
    offsets: Int64Array
    """(labelled images + 1,)"""
    tag_ids: Int16Array
    """Ascending within an image."""
    found: Found
    judged: Pairs | None = None
    """The tags of each image of which anything is known, true or not; None where that is all of them."""

    def __len__(self) -> int:
        return int(self.image_ids.size)

    def positions(self, image_ids: Sequence[int]) -> Int64Array:
        """Where in these arrays some images stand; -1 for one that nobody labelled."""
        wanted = np.array(image_ids, dtype=np.int64)
        if not self.image_ids.size:
            return np.full(wanted.size, -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.image_ids, wanted), len(self) - 1)
        return np.where(self.image_ids[at] == wanted, at, -1)

    def pairs(self, positions: Int64Array) -> tuple[Int64Array, Int16Array]:
        """(rows, tag ids): every true tag of some images. `rows` are places in `positions`, ascending; -1 has none."""
        return self._given.of(positions)

    def given(self, kept: TagBatch, positions: Int64Array, tags: int) -> npt.NDArray[np.bool_]:
        """In step with `kept.tag_ids`: whether people gave that tag to that image.

        Args:
            positions: of the images of `kept`.
            tags: how many the model has.
        """
        return self._given.contains(kept, positions, tags)

    def known(self, kept: TagBatch, positions: Int64Array, tags: int) -> npt.NDArray[np.bool_]:
        """The same for whether people said anything of that tag of that image."""
        if self.judged is not None:
            return self.judged.contains(kept, positions, tags)
        known: npt.NDArray[np.bool_] = (positions >= 0)[kept.rows]
        return known

    def split(self, share: float) -> tuple["Truth", "Truth"]:
        """(the rest, about a share of the images). The same image falls on the same side every time."""
        # The finaliser of SplitMix64 (Steele, Lea, Flood 2014): neighbouring ids become independent numbers.
        with np.errstate(over="ignore"):
            mixed = self.image_ids.astype(np.uint64) * np.uint64(_MIX[0])
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_MIX[1])
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_MIX[2])
        aside = (mixed >> np.uint64(11)).astype(np.float64) / 2**53 < share
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
