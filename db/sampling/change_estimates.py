"""Estimate the effect of a change of thresholds on the whole collection, from images drawn at random."""

from dataclasses import dataclass

from db.policy.policies import Cut
from db.read.comparison import compare_batches
from db.read.tag_batches import TagBatch
from db.truth.wilson import wilson_interval


@dataclass(frozen=True, slots=True)
class ChangeEstimate:
    """The estimated difference between two policies, over all images."""

    images: int
    """Images that gain or lose a tag."""
    low: int
    """Lower end of the 95 % confidence interval of `images`. There is no finite population correction: the interval is
    too wide for a collection hardly larger than the pool."""
    high: int
    gained: int
    """Tags gained, summed over all images."""
    lost: int

    @property
    def assignments(self) -> int:
        """Tags gained or lost."""
        return self.gained + self.lost


def estimate_change(pool: TagBatch, first: Cut, second: Cut, population: int) -> ChangeEstimate:
    """Estimate the images and tags that differ between two cuts. The result is exact if the pool is the population.

    Args:
        pool: images drawn at random, with all scores at or above the lowest of both cuts.
        population: number of images of the collection.
    """
    found = compare_batches([pool], first, second)
    size, changed = len(pool), found.changed
    population = max(population, size)
    scale = population / size if size else 0.0
    low, high = wilson_interval(changed, size)
    rest = population - size
    return ChangeEstimate(
        images=round(changed * scale),
        # The images of the pool are certain.
        low=min(max(round(low * population), changed), changed + rest) if rest else changed,
        high=max(min(round(high * population), changed + rest), changed) if rest else changed,
        gained=round(int(found.gained.sum()) * scale),
        lost=round(int(found.lost.sum()) * scale),
    )
