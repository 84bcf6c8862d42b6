"""Random images to show to a person, and estimates for the whole collection. Every draw is seeded.

random_images      at random from the whole collection, or from the images in which the score of a tag is in a range
near_threshold     the images whose score of a tag is nearest to its threshold
pool               some images in memory: the most diverse, and those whose scores are nearest to their thresholds
row_size           the size of stored rows at several floors
change_estimates   the effect of a change of thresholds on the collection, from a pool drawn at random
"""

from db.sampling.change_estimates import ChangeEstimate, estimate_change
from db.sampling.near_threshold import ScoredImage, around
from db.sampling.pool import diverse, load, part_of, undecided
from db.sampling.random_images import random_ids, with_tag
from db.sampling.row_size import FLOORS, LARGE, RowSize, row_size

__all__ = [
    "FLOORS",
    "LARGE",
    "ChangeEstimate",
    "RowSize",
    "ScoredImage",
    "around",
    "diverse",
    "estimate_change",
    "load",
    "part_of",
    "random_ids",
    "row_size",
    "undecided",
    "with_tag",
]
