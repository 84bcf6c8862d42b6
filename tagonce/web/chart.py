"""A histogram as shapes of an SVG: what the template draws, in the units of its view box."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from db.judging.histograms import Histogram
from db.policies import NEVER
from db.scores import SCALE

WIDTH, HEIGHT, FOOT, HEAD = 900, 220, 24, 34
"""Of the view box; below the bars there is room for numbers, above them for the names of marks."""


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    kept: bool
    title: str


@dataclass(frozen=True, slots=True)
class Mark:
    """An upright line with words."""

    x: float
    words: str
    row: int
    """Words stand in two rows by turns, so that neighbours can be read."""


@dataclass(frozen=True, slots=True)
class Chart:
    bars: Sequence[Bar]
    line: float | None
    """None where the tag is off."""
    marks: Sequence[Mark]
    most: int
    """The highest count."""


def chart_of(spread: Histogram, score: int, marks: Sequence[tuple[str, int]]) -> Chart:
    """The heights are logarithmic: most scores of most tags lie near 0, and what matters lies elsewhere."""
    most = max(spread.counts, default=0)
    width = WIDTH / len(spread.counts)
    bars = []
    for number, count in enumerate(spread.counts):
        if not count:
            continue
        height = (HEIGHT - HEAD - FOOT) * math.log1p(count) / math.log1p(most)
        low, high = spread.edges[number], spread.edges[number + 1]
        kept = low * SCALE >= score - 0.5
        bars.append(
            Bar(
                number * width, HEIGHT - FOOT - height, width * 0.9, height, kept, f"{count:,} from {low:g} to {high:g}"
            )
        )
    line = None if score >= NEVER else _x(score)
    return Chart(bars, line, [Mark(_x(at), words, row % 2) for row, (words, at) in enumerate(marks)], most)


def _x(score: int) -> float:
    return WIDTH * score / SCALE
