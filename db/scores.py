"""Scores: probabilities as the database stores them, and thresholds as queries compare them.

    score = floor(probability * 10000)

Scores are rounded down, so that for every threshold t that is a multiple of 0.0001, `score >= t * 10000` selects
exactly the tags whose float32 probability is >= t. (Rounding to nearest would lift 0.34996 over a threshold of 0.35.)
"""

from dataclasses import dataclass
from decimal import Decimal, DecimalException
from typing import TYPE_CHECKING

from db.errors import ThresholdError

if TYPE_CHECKING:
    from db.arrays.types import Int16Array, Int32Array

SCALE = 10_000
NEVER = SCALE + 1
"""A threshold above every score."""
TAG_ID_BITS = 17
MAX_TAGS = 1 << TAG_ID_BITS
"""With the 14 bits of a score, a tag id fits in 31 bits."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The tags of one image that reached the floor, sorted by ascending score (ties by ascending tag_id)."""

    tag_ids: "Int32Array"
    """Output positions in the model, 0-based."""
    scores: "Int16Array"
    """Ten-thousandths, parallel to `tag_ids`."""

    def __len__(self) -> int:
        return int(self.tag_ids.size)


def to_score(threshold: float | str | Decimal, *, what: str = "A threshold") -> int:
    """A threshold as the lowest score to keep.

    Args:
        threshold: 0 to 1 with at most four decimals; a float counts as the decimal number it prints as.
        what: the first words of the error message.

    Returns:
        0 to 10,000, in ten-thousandths.

    Raises:
        ThresholdError: `threshold` is not such a number.
    """
    try:
        exact = Decimal(str(threshold)) * SCALE
    except DecimalException:
        raise ThresholdError(f"{what} is a number between 0 and 1, not {threshold!r}.") from None
    if not exact.is_finite() or not 0 <= exact <= SCALE:
        raise ThresholdError(f"{what} is a number between 0 and 1, not {threshold}.")
    if exact != int(exact):
        raise ThresholdError(
            f"{what} has at most four decimals, since scores are stored in ten-thousandths; {threshold} has more."
        )
    return int(exact)


def to_probability(score: int) -> float:
    """The lower bound of the probability that a score stands for; the true one is less than 0.0001 above it."""
    return score / SCALE
