"""What a change of thresholds does to a whole collection, from some images that were drawn at random."""

from dataclasses import dataclass

from db.policy.policies import Cut
from db.read.comparison import compare_batches
from db.read.tag_batches import TagBatch
from db.truth.precision import wilson


@dataclass(frozen=True, slots=True)
class ChangeEstimate:
    """From one policy to another, over all images."""

    images: int
    """That gain or lose a tag."""
    low: int
    """95 % interval of that number. It is the interval of a much larger collection, and too wide for one that is hardly
    larger than the pool."""
    high: int
    gained: int
    """Tags of all images together."""
    lost: int

    @property
    def assignments(self) -> int:
        """Tags that come or go."""
        return self.gained + self.lost


def estimate_change(pool: TagBatch, first: Cut, second: Cut, population: int) -> ChangeEstimate:
    """Of a pool that is all of the population it is exact.

    Args:
        pool: drawn at random, with everything that either of the two needs to see.
        population: images of the collection.
    """
    found = compare_batches([pool], first, second)
    size, changed = len(pool), found.changed
    population = max(population, size)
    scale = population / size if size else 0.0
    low, high = wilson(changed, size)
    rest = population - size
    return ChangeEstimate(
        images=round(changed * scale),
        # What was seen is certain.
        low=min(max(round(low * population), changed), changed + rest) if rest else changed,
        high=max(min(round(high * population), changed + rest), changed) if rest else changed,
        gained=round(int(found.gained.sum()) * scale),
        lost=round(int(found.lost.sum()) * scale),
    )
