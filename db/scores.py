"""Scores: what a probability becomes in the database, and what a threshold becomes in a query.

    score = floor(probability * 10000)

Rounded down, so that for every threshold t that is a multiple of 0.0001, `score >= t * 10000` selects exactly the
tags whose float32 probability is >= t. (Rounding to nearest would lift 0.34996 over a threshold of 0.35.)
"""

from dataclasses import dataclass
from decimal import Decimal, DecimalException

import numpy as np

from db.errors import ThresholdError
from db.schema import Int16Array

SCALE = 10_000
NEVER = SCALE + 1
"""A threshold that no score reaches."""
MAX_TAGS = 32_767
"""`tag_id` is a smallint."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The tags of one image that reached the floor, sorted by ascending score (ties by ascending tag_id)."""

    tag_ids: Int16Array
    """Output positions in the model, 0-based."""
    scores: Int16Array
    """Ten-thousandths, in step with `tag_ids`."""

    def __len__(self) -> int:
        return int(self.tag_ids.size)


NO_SCORES = Scores(np.empty(0, dtype=np.int16), np.empty(0, dtype=np.int16))


def to_score(threshold: float | str | Decimal, *, what: str = "A threshold") -> int:
    """The smallest score that a tag at `threshold` may have.

    Args:
        threshold: 0 to 1 with at most four decimals; a float counts as the decimal number it prints as.
        what: the first words of the error message.

    Raises:
        ThresholdError: it is no such number.
    """
    try:
        exact = Decimal(str(threshold)) * SCALE
    except DecimalException:
        raise ThresholdError(f"{what} is a number between 0 and 1, not {threshold!r}.") from None
    if not exact.is_finite() or not 0 <= exact <= SCALE:
        raise ThresholdError(f"{what} is a number between 0 and 1, not {threshold}.")
    if exact != int(exact):
        raise ThresholdError(f"{what} has at most four decimals, since scores are kept in ten-thousandths: {threshold}")
    return int(exact)


def to_probability(score: int) -> float:
    """The probability that a score stands for: the true one is this or up to 0.0001 above."""
    return score / SCALE
