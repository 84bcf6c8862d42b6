"""Number of images that keep each tag: exact where the counts suffice, else an estimate marked as such."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from db.arrays.types import Int64Array
from db.policy.policies import Cut
from db.read import tag_batches
from tagonce.web.state.site import Site


@dataclass(frozen=True, slots=True)
class Number:
    """A number of images."""

    value: int
    exact: bool

    def __str__(self) -> str:
        return f"{self.value:,}" if self.exact else f"about {self.value:,}"


@dataclass(frozen=True, slots=True)
class Totals:
    """Numbers of all tags of the model, as arrays in step."""

    images: int
    """Images of the collection."""
    kept: Int64Array
    """(tags,) images that keep each tag."""
    exact: npt.NDArray[np.bool_]
    """(tags,) whether that number is exact."""

    def of(self, tag_id: int) -> Number:
        return Number(int(self.kept[tag_id]), bool(self.exact[tag_id]))


def totals_of(site: Site, cut: Cut) -> Totals | None:
    """Takes milliseconds for a collection of any size. None before the first counts.

    Counts suffice for thresholds that are multiples of 0.001. For finer ones, `top` or MCut, and before the counts are
    complete, the images drawn at random are evaluated.
    """
    counted, drawn = site.collection.distribution, site.collection.drawn
    told = np.zeros(len(site.tags), dtype=np.bool_) if counted is None else counted.tells(cut)
    if counted is not None and told.all():
        return Totals(counted.images, counted.kept(cut), told)
    if drawn is None:
        return None
    here = drawn.pool.tag_ids[tag_batches.kept_mask(drawn.pool, cut)]
    estimated = drawn.scaled(np.bincount(here, minlength=len(site.tags)))
    if drawn.is_everything:
        return Totals(drawn.population, estimated, np.ones_like(told))
    if counted is None or counted.images != drawn.population:  # older counts do not match these images
        return Totals(drawn.population, estimated, np.zeros_like(told))
    return Totals(drawn.population, np.where(told, counted.kept(cut), estimated), told)


def limits_in_words(cut: Cut, tag_id: int | None = None) -> str:
    """The rules besides thresholds (top, MCut, exclusive groups), in words; empty without any.

    Args:
        tag_id: only the rules that concern this tag.
    """
    words = [] if cut.mcut is None else ["MCut"]
    if cut.groups is not None and (tag_id is None or cut.groups[tag_id] >= 0):
        words.append("only the best tag of an exclusive category")
    return " and ".join(words + ([] if cut.top is None else [f"the {cut.top:,} best of each image"]))
