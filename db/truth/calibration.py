"""Calibration: the best threshold of each tag, from the counts of one pass over the scores.

If several neighbouring thresholds are equally good, no score that matters lies between them. The middle of the widest
such run is taken, rounded down to the grid. It is farthest from the scores on both sides, so the slightly different
scores of further images are least likely to fall on the wrong side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from db.ledger.models import Tag
from db.policy.policies import Policy
from db.scores import NEVER, SCALE
from db.truth.evaluation import Confusion, Counts, FloatArray

STEP = 10
"""Thresholds are tried every 0.001."""


class By(StrEnum):
    """The metric that is maximised."""

    INFORMEDNESS = "informedness"
    F_BETA = "f-beta"


@dataclass(frozen=True, slots=True)
class Goal:
    """The criterion for the best threshold."""

    by: By = By.INFORMEDNESS
    beta: float = 1.0
    """The weight of recall relative to precision, in F-beta."""
    min_precision: float = 0.0
    min_recall: float = 0.0
    min_support: int = 10
    """A tag with fewer positive images gets no threshold of its own."""

    def __str__(self) -> str:
        parts = [f"best F{self.beta:g}" if self.by is By.F_BETA else "best informedness"]
        parts += [f"precision at least {self.min_precision:g}"] if self.min_precision else []
        parts += [f"recall at least {self.min_recall:g}"] if self.min_recall else []
        return ", ".join([*parts, f"support at least {self.min_support}"])


@dataclass(frozen=True, slots=True)
class Calibration:
    """The result of `calibrate`."""

    policy: Policy
    """A threshold for each tag with enough support. Other tags have the model's default threshold, or `default`."""
    off: list[str]
    """Tags that are never kept: no threshold reaches the precision, or none is better than keeping nothing."""
    short: list[str]
    """Tags that reach the precision but not the recall. Their threshold is the one with the highest recall."""


def grid(floor: int, step: int = STEP) -> list[int]:
    """The scores that are tried: the floor, and all multiples of `step` from there to 1, in ten-thousandths."""
    return sorted({floor, *range(-(-floor // step) * step, SCALE + 1, step)})


def calibrate(counts: Counts, tags: Sequence[Tag], goal: Goal, *, default: int | None = None) -> Calibration:
    """Find the best threshold of each tag.

    A tag needs `min_support` images that have it and one that does not: otherwise every threshold is equally good.
    Sums over the tags that people gave say nothing about other tags, so tags without enough support get no threshold.

    Args:
        counts: counts at the thresholds of `grid`.
        tags: the model's tags, by output position.
        default: the threshold of tags without enough support, in ten-thousandths; None: the model's default threshold.
    """
    supported = (counts.support >= max(goal.min_support, 1)) & (counts.judged_on > counts.support)
    found: dict[str, int] = {}
    off: list[str] = []
    short: list[str] = []
    for chunk, confusion in counts.chunks():
        indices, reached = best(confusion, goal)
        for tag_id, index, enough in zip(
            range(chunk.start, chunk.stop), indices.tolist(), reached.tolist(), strict=False
        ):
            name = tags[tag_id].name
            # An output with an empty name is not a tag.
            if not supported[tag_id] or not name:
                continue
            found[name] = NEVER if index < 0 else int(counts.thresholds[index])
            if index < 0:
                off.append(name)
            elif not enough:
                short.append(name)
    return Calibration(Policy(default=default, tags=found), off, short)


def best(confusion: Confusion, goal: Goal) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Find the best threshold of each tag.

    Args:
        confusion: (tags, thresholds).

    Returns:
        (tags,) the index of the best threshold, and (tags,) whether it reaches the required recall. The index is -1 if
        no threshold reaches the required precision, or none has an informedness or F-beta above 0: the tag is then
        best never kept.
    """
    value = confusion.f_beta(goal.beta) if goal.by is By.F_BETA else np.nan_to_num(confusion.informedness)
    precise = (confusion.precision >= goal.min_precision) & (value > 0)
    recalls = confusion.recall
    fits = precise & (recalls >= goal.min_recall)
    reached: npt.NDArray[np.bool_] = np.any(fits, axis=1)
    aim = np.where(reached[:, None], np.where(fits, value, -1.0), np.where(precise, recalls, -1.0))
    indices = [
        _middle_of_widest(row) if usable else -1 for row, usable in zip(aim, np.any(precise, axis=1), strict=True)
    ]
    return np.array(indices, dtype=np.int64), reached


def _middle_of_widest(values: FloatArray) -> int:
    """The index of the middle of the widest run of the maximum; of equally wide runs, of the first."""
    top = np.concatenate([[False], values == values.max(), [False]])
    starts, stops = np.flatnonzero(top[1:] & ~top[:-1]), np.flatnonzero(top[:-1] & ~top[1:])
    widest = int(np.argmax(stops - starts))
    return int(starts[widest] + stops[widest] - 1) // 2
