"""A histogram as shapes of an SVG, in the units of its view box."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from db.read.histograms import Histogram
from db.scores import NEVER, SCALE

WIDTH, HEIGHT = 900, 170
"""Size of the view box. Text is outside of it, readable at any width."""


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    kept: bool
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    bars: Sequence[Bar]
    line: float | None
    """None where the tag is off."""
    marks: Sequence[float]
    """Positions of the vertical lines."""
    most: int
    """The highest count."""


def chart_of(spread: Histogram, score: int, marks: Sequence[int]) -> Chart:
    """Bars, the line of a threshold, and marks at other scores.

    Heights are logarithmic: most scores of most tags are near 0, and the relevant ones are elsewhere.
    """
    most = max(spread.counts, default=0)
    width = WIDTH / len(spread.counts)
    bars = []
    for number, count in enumerate(spread.counts):
        if not count:
            continue
        height = HEIGHT * math.log1p(count) / math.log1p(most)
        low, high = spread.edges[number], spread.edges[number + 1]
        kept = low * SCALE >= score - 0.5
        bars.append(
            Bar(number * width, HEIGHT - height, width * 0.9, height, kept, f"{count:,} from {low:g} to {high:g}")
        )
    line = None if score >= NEVER else _x(score)
    return Chart(bars, line, [_x(mark) for mark in sorted(set(marks))], most)


def _x(score: int) -> float:
    return WIDTH * score / SCALE
