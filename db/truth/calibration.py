"""The best threshold of each tag, from the counts of one pass.

Where several neighbouring thresholds are equally good, no score that matters lies between them. The middle of the
widest such stretch is taken, rounded down to the grid: it is farthest from the scores on both sides, so the next
images, whose scores will be a little different, are least likely to fall on the wrong side.
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
    """What is made as large as possible."""

    INFORMEDNESS = "informedness"
    F_BETA = "f-beta"


@dataclass(frozen=True, slots=True)
class Goal:
    """What a good threshold is."""

    by: By = By.INFORMEDNESS
    beta: float = 1.0
    """Of F-beta: recall counts so many times as much as precision."""
    min_precision: float = 0.0
    min_recall: float = 0.0
    min_support: int = 10
    """A tag that was given to fewer images gets no threshold of its own."""

    def __str__(self) -> str:
        parts = [f"best F{self.beta:g}" if self.by is By.F_BETA else "best informedness"]
        parts += [f"precision at least {self.min_precision:g}"] if self.min_precision else []
        parts += [f"recall at least {self.min_recall:g}"] if self.min_recall else []
        return ", ".join([*parts, f"support at least {self.min_support}"])


@dataclass(frozen=True, slots=True)
class Calibration:
    """What came out."""

    policy: Policy
    """A threshold for each tag with enough support. Other tags keep the model's own, or `default`."""
    off: list[str]
    """Tags that are never kept: no threshold reaches the precision, or none is better than keeping nothing."""
    short: list[str]
    """Tags that reach the precision but not the recall: they have the threshold of the highest recall there is."""


def grid(floor: int, step: int = STEP) -> list[int]:
    """The scores that are tried: the floor, and every so many ten-thousandths above it, up to 1."""
    return sorted({floor, *range(-(-floor // step) * step, SCALE + 1, step)})


def calibrate(counts: Counts, tags: Sequence[Tag], goal: Goal, *, default: int | None = None) -> Calibration:
    """Find the best threshold of each tag.

    A tag needs `min_support` images that have it and one that does not: otherwise every threshold is equally good. The
    sums over the tags that people named say nothing of the tags that they did not name, so these are left alone.

    Args:
        counts: at the thresholds of `grid`.
        tags: of the model.
        default: for tags without enough support; None leaves them to the model's own threshold.
    """
    enough_said = (counts.support >= max(goal.min_support, 1)) & (counts.judged_on > counts.support)
    found: dict[str, int] = {}
    off: list[str] = []
    short: list[str] = []
    for chunk, confusion in counts.chunks():
        places, reached = best(confusion, goal)
        for tag_id, place, enough in zip(
            range(chunk.start, chunk.stop), places.tolist(), reached.tolist(), strict=False
        ):
            name = tags[tag_id].name
            # An empty name holds a slot of the model and is no tag.
            if not enough_said[tag_id] or not name:
                continue
            found[name] = NEVER if place < 0 else int(counts.thresholds[place])
            if place < 0:
                off.append(name)
            elif not enough:
                short.append(name)
    return Calibration(Policy(default=default, tags=found), off, short)


def best(confusion: Confusion, goal: Goal) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """(tags, thresholds) to the place of the best threshold of each tag, and whether it has the recall asked for.

    A place is -1 where it is best to keep nothing: the precision is out of reach, or no threshold is better than
    chance (informedness above 0) or right at all (F-beta above 0).
    """
    value = confusion.f_beta(goal.beta) if goal.by is By.F_BETA else np.nan_to_num(confusion.informedness)
    precise = (confusion.precision >= goal.min_precision) & (value > 0)
    recalls = confusion.recall
    fits = precise & (recalls >= goal.min_recall)
    reached: npt.NDArray[np.bool_] = np.any(fits, axis=1)
    aim = np.where(reached[:, None], np.where(fits, value, -1.0), np.where(precise, recalls, -1.0))
    places = [
        _middle_of_widest(row) if usable else -1 for row, usable in zip(aim, np.any(precise, axis=1), strict=True)
    ]
    return np.array(places, dtype=np.int64), reached


def _middle_of_widest(values: FloatArray) -> int:
    """The middle of the widest stretch of the highest value; of equally wide ones the lowest."""
    top = np.concatenate([[False], values == values.max(), [False]])
    starts, ends = np.flatnonzero(top[1:] & ~top[:-1]), np.flatnonzero(top[:-1] & ~top[1:])
    widest = int(np.argmax(ends - starts))
    return int(starts[widest] + ends[widest] - 1) // 2
