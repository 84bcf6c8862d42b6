"""Which images to show to a person, and what they tell of all others. Everything is seeded.

drawn       at random from the whole collection, or from the images in which a tag has a score in some range
line        the images nearest to a tag's threshold
pool        some images in memory: the most different ones, and those whose tags are nearest to their thresholds
estimates   what a change of thresholds does to the collection, from a pool that was drawn at random
"""

from db.sampling.change_estimates import ChangeEstimate, estimate_change
from db.sampling.near_threshold import Near, around
from db.sampling.pool import diverse, load, part_of, undecided
from db.sampling.random_images import random_ids, with_tag

__all__ = [
    "ChangeEstimate",
    "Near",
    "around",
    "diverse",
    "estimate_change",
    "load",
    "part_of",
    "random_ids",
    "undecided",
    "with_tag",
]
