"""How the scores of a whole collection are spread, counted in one pass: what a slider is answered from in milliseconds.

    per tag       images that have it at or above each threshold, at steps of 0.001
    all tags,     images that do not change when all of their thresholds move from a to b, at steps of 0.01
    a category    (`db.read.unchanged_images`)

It is what was stored when it was counted; `counted_at` and `images` tell whether it is still true.
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from db.ledger import models
from db.ledger.models import Model
from db.policy.policies import Cut, category_numbers
from db.read import unchanged_images
from db.read.histograms import Histogram
from db.read.score_stream import every_score
from db.read.tag_batches import Int64Array
from db.schema import Int16Array
from db.scores import NEVER, SCALE

STEP = 10
"""Ten-thousandths between two thresholds of a tag that are told apart."""
CELLS = SCALE // STEP + 1

_FORMAT = "tagonce distribution 1"


@dataclass(frozen=True, slots=True)
class Distribution:
    """The scores of all images that a model has tagged."""

    model_id: int
    fingerprint: str
    """Of the model."""
    floor: int
    """Of the model: lower scores are not stored."""
    images: int
    """That have a prediction, scores or none."""
    counted_at: datetime
    """When counting began, UTC."""
    reaching: npt.NDArray[np.int32]
    """(tags, CELLS) images that have the tag at or above 0, 0.001, 0.002, ..., 1."""
    categories: Int16Array
    """(tags,) the number of each tag's category."""
    unchanged: Int64Array
    """(tables, `WIDTH`, `WIDTH`) the tables of all tags and of each category, by `db.read.unchanged_images`."""

    def can_tell(self, cut: Cut) -> bool:
        """`kept`, `gained_lost` and `assignments` are exact for every tag."""
        return bool(self.tells(cut).all())

    def tells(self, cut: Cut) -> npt.NDArray[np.bool_]:
        """(tags,) for which tags they are exact: thresholds alone, multiples of 0.001 or the floor."""
        scores = cut.scores
        fits: npt.NDArray[np.bool_] = (scores % STEP == 0) | (scores >= NEVER) | (scores == self.floor)
        return fits if cut.top is None and cut.mcut is None else np.zeros_like(fits)

    def kept(self, cut: Cut) -> Int64Array:
        """(tags,) images that keep each tag; no less than that where it cannot be told exactly."""
        return self._reaching(cut.scores)

    def gained_lost(self, first: Cut, second: Cut) -> tuple[Int64Array, Int64Array]:
        """(tags,) images that have a tag under the second one only, and under the first one only."""
        change = self.kept(second) - self.kept(first)
        return np.maximum(change, 0), np.maximum(-change, 0)

    def assignments(self, cut: Cut) -> int:
        """Tags of all images together."""
        return int(self.kept(cut).sum())

    def histogram(self, tag_id: int, bins: int = 100) -> Histogram:
        """The scores of a tag.

        Args:
            bins: a divisor of 1,000.
        """
        reaching = self.reaching[tag_id].astype(np.int64)
        # The last edge is 1, and what is 1 belongs to the last bin: nothing is taken off from there.
        starts = reaching[: CELLS - 1 : (CELLS - 1) // bins]
        return Histogram(self.images, (starts - np.append(starts[1:], 0)).tolist())

    def changed_images(self, first: Cut, second: Cut) -> int | None:
        """Images that gain or lose a tag, or None where these counts cannot tell.

        They can where one tag has moved; or all tags, or all of one category, from the same threshold to the same other
        one, both multiples of 0.01. Tags that nothing changes of may have moved or not, however far.
        """
        if not (self.can_tell(first) and self.can_tell(second)):
            return None
        changes = sum(self.gained_lost(first, second))
        moved = np.flatnonzero(changes)
        if moved.size <= 1:
            return int(np.sum(changes))
        lows, highs = (pick(first.scores, second.scores) for pick in (np.minimum, np.maximum))
        low, high = int(lows[moved[0]]), int(highs[moved[0]])
        start, end = unchanged_images.level_of(low, self.floor), unchanged_images.level_of(high, self.floor)
        if start is None or end is None or (lows[moved] != low).any() or (highs[moved] != high).any():
            return None
        # All who have a score between the two, whether they moved or not.
        between = self._reaching(np.full_like(lows, low)) - self._reaching(np.full_like(highs, high))
        table = self._table(moved, np.flatnonzero(between))
        return None if table is None else self.images - unchanged_images.without(self.unchanged[table], start, end)

    def save(self, path: Path) -> None:
        """Write it to a file (.npz), whole or not at all. About 4 kB a tag."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["counted_at"] = self.counted_at.timestamp()
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".part", delete=False) as file:
            try:
                np.savez(file, format=_FORMAT, **values)
                file.close()
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise

    def _table(self, moved: Int64Array, concerned: Int64Array) -> int | None:
        """The table of a group of tags in which all that are `concerned` have moved, and no others."""
        if np.array_equal(moved, concerned):
            return 0
        category = int(self.categories[moved[0]])
        whole = concerned[self.categories[concerned] == category]
        return 1 + category if category < unchanged_images.MOST_CATEGORIES and np.array_equal(moved, whole) else None

    def _reaching(self, scores: Int16Array) -> Int64Array:
        counts = self.reaching[np.arange(scores.size), np.minimum(scores // STEP, CELLS - 1)]
        return np.where(scores >= NEVER, 0, counts).astype(np.int64)


def count_scores(
    connection: Connection, model: Model, *, advance: Callable[[int], object] = lambda _: None
) -> Distribution:
    """Read all scores of a model once. Memory: 4 kB for each of its tags, and no more for more images.

    Args:
        advance: told after each batch how many images it had.
    """
    counted_at = datetime.now(UTC)
    categories = category_numbers(models.tag_names(connection, model.id))
    counts = np.zeros((categories.size, CELLS), dtype=np.int32)
    flat, one = counts.reshape(-1), np.int32(1)
    counter = unchanged_images.UnchangedCounter(categories)
    images = 0
    for batch in every_score(connection, model):
        # Adding in place: a table of all cells for every batch would take ten times as long.
        np.add.at(flat, batch.tag_ids.astype(np.int64) * CELLS + batch.scores // STEP, one)
        counter.add(batch)
        images += len(batch)
        advance(len(batch))
    # Suffix sums in place, from 1 downwards.
    np.cumsum(counts[:, ::-1], axis=1, out=counts[:, ::-1])
    return Distribution(
        model.id, model.fingerprint, model.floor, images, counted_at, counts, categories, counter.tables()
    )


def load(path: Path) -> Distribution | None:
    """What `Distribution.save` wrote; None where there is no such file, or it is something else."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            if str(file["format"]) != _FORMAT:
                return None
            values: dict[str, Any] = {field.name: file[field.name] for field in fields(Distribution)}
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        return None
    values = {name: value if value.ndim else value.item() for name, value in values.items()}
    return Distribution(**values | {"counted_at": datetime.fromtimestamp(values["counted_at"], UTC)})
