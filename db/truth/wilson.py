"""The score interval of Wilson ("Probable inference, the law of succession, and statistical inference", JASA 1927)."""

from math import sqrt

Z = 1.959963984540054
"""The normal quantile of a two-sided 95 %."""


def wilson_interval(hits: float, trials: float) -> tuple[float, float]:
    """The 95 % confidence interval (low, high) of a proportion; (0, 1) for no trials.

    Args:
        hits, trials: need not be whole numbers: effective sample sizes are not.
    """
    if not trials:
        return 0.0, 1.0
    centre = hits + Z**2 / 2
    reach = Z * sqrt(max(hits * (trials - hits) / trials, 0) + Z**2 / 4)
    return max((centre - reach) / (trials + Z**2), 0.0), min((centre + reach) / (trials + Z**2), 1.0)
