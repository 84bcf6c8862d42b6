"""The distribution of the scores of a whole collection. It answers a slider in milliseconds.

    per tag       images that have the tag at or above each threshold, at steps of 0.001
    all tags,     images that do not change when all of their thresholds move from a to b, at steps of 0.01
    a category    (`db.postings.unchanged_images`)

It describes the scores that were stored when it was counted; `counted_at` and `images` show whether it is out of date.
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

from db.arrays.score_batch import ScoreBatch
from db.arrays.types import Int16Array, Int32Array, Int64Array
from db.ledger import models
from db.ledger.models import Model
from db.policy.policies import Cut, category_numbers
from db.postings import counts, unchanged_images
from db.read.histograms import Histogram
from db.read.score_stream import every_score
from db.scores import NEVER, SCALE
from db.sql.gone_scope import tagged

STEP = 10
"""Ten-thousandths between two thresholds of a tag that are counted separately."""
CELLS = SCALE // STEP + 1
"""Thresholds of a tag: 0, 0.001, ..., 1."""

_FORMAT = "tagonce distribution 1"


@dataclass(frozen=True, slots=True)
class Distribution:
    """The scores of all images that a model has tagged."""

    model_id: int
    fingerprint: str
    """Fingerprint of the model."""
    floor: int
    """Floor of the model in ten-thousandths: lower scores are not stored."""
    images: int
    """Images that have a prediction, with or without scores."""
    counted_at: datetime
    """Start of the count, UTC."""
    reaching: npt.NDArray[np.int32]
    """(tags, CELLS) images that have the tag at or above 0, 0.001, 0.002, ..., 1."""
    categories: Int32Array
    """(tags,) the number of each tag's category."""
    unchanged: Int64Array
    """(tables, `WIDTH`, `WIDTH`) the tables of all tags and of each category, from `db.postings.unchanged_images`."""

    def can_tell(self, cut: Cut) -> bool:
        """Whether `kept`, `gained_lost` and `assignments` are exact for every tag."""
        return bool(self.tells(cut).all())

    def can_compare(self, first: Cut, second: Cut) -> bool:
        """Whether `gained_lost` is exact for every tag. A group that both cuts treat alike does not matter."""
        told = self.tells(first) & self.tells(second)
        if first.groups is not None and second.groups is not None and told.any():
            alike = (first.groups == second.groups) & (first.scores == second.scores)
            changed = np.concatenate([first.groups[~alike], second.groups[~alike]])
            told |= alike & (first.groups >= 0) & ~np.isin(first.groups, changed)
        return bool(told.all())

    def tells(self, cut: Cut) -> npt.NDArray[np.bool_]:
        """(tags,) whether they are exact for each tag: thresholds that are multiples of 0.001 or the floor.

        They are not for the tags of an exclusive group, and for no tag with `top` or MCut.
        """
        scores = cut.scores
        fits: npt.NDArray[np.bool_] = (scores % STEP == 0) | (scores >= NEVER) | (scores == self.floor)
        if cut.top is not None or cut.mcut is not None:
            return np.zeros_like(fits)
        return fits if cut.groups is None else fits & (cut.groups < 0)

    def kept(self, cut: Cut) -> Int64Array:
        """(tags,) images that keep each tag. An upper bound where the number is not exact (`tells`)."""
        return self._reaching(cut.scores)

    def gained_lost(self, first: Cut, second: Cut) -> tuple[Int64Array, Int64Array]:
        """(gained, lost), (tags,) each: images that have a tag under the second cut only, and under the first only."""
        change = self.kept(second) - self.kept(first)
        return np.maximum(change, 0), np.maximum(-change, 0)

    def assignments(self, cut: Cut) -> int:
        """Number of (image, tag) pairs that the cut keeps."""
        return int(self.kept(cut).sum())

    def histogram(self, tag_id: int, bins: int = 100) -> Histogram:
        """The histogram of a tag's scores.

        Args:
            bins: a divisor of 1,000.
        """
        reaching = self.reaching[tag_id].astype(np.int64)
        # The last bin includes the probability 1, so nothing is subtracted from it.
        starts = reaching[: CELLS - 1 : (CELLS - 1) // bins]
        return Histogram(self.images, (starts - np.append(starts[1:], 0)).tolist())

    def changed_images(self, first: Cut, second: Cut) -> int | None:
        """Images that gain or lose a tag; None if these counts do not determine the number.

        They do if one tag has moved; or if all tags, or all of one category, have moved from one threshold to another,
        both multiples of 0.01. Tags without a score in between do not matter: they may have moved or not.
        """
        if not self.can_compare(first, second):
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
        # Images that have a score between the two, for each tag, whether the tag moved or not.
        between = self._reaching(np.full_like(lows, low)) - self._reaching(np.full_like(highs, high))
        table = self._table(moved, np.flatnonzero(between))
        return None if table is None else self.images - unchanged_images.without(self.unchanged[table], start, end)

    def save(self, path: Path) -> None:
        """Write to a file (.npz) of about 4 kB per tag. The file is written completely or left unchanged."""
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
        """The table of a group of tags of which exactly the `concerned` ones have moved; None if there is none.

        Args:
            moved: ids of tags that change.
            concerned: ids of tags that have a score between the two thresholds.
        """
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
    """Count all scores of a model. Memory: 4 kB per tag, independent of the number of images.

    Args:
        advance: called after each batch with its number of images.
    """
    counted_at = datetime.now(UTC)
    categories = category_numbers(models.tag_names(connection, model.id))
    plan = counts.plan(connection, model.id)
    of_rows = _Counter(categories)
    where = tagged(connection, model.id) if plan is None else plan.added
    for batch in every_score(connection, model, where):
        of_rows.add(batch)
        advance(len(batch))
    cells, pairs, images = of_rows.cells, of_rows.pairs, of_rows.images
    if plan is not None:
        stored_pairs, images = _add_blocks(connection, model, plan, cells, advance)
        pairs += stored_pairs
        if plan.subtracted is not None:
            gone = _Counter(categories)
            for batch in every_score(connection, model, plan.subtracted):
                gone.add(batch)
            cells -= gone.cells
            pairs -= gone.pairs
    # Suffix sums in place, from 1 downwards.
    np.cumsum(cells[:, ::-1], axis=1, out=cells[:, ::-1])
    tables = unchanged_images.tables(pairs)
    return Distribution(model.id, model.fingerprint, model.floor, images, counted_at, cells, categories, tables)


class _Counter:
    """Counts the scores of batches.

    Args:
        categories: (tags,) the number of each tag's category.
    """

    def __init__(self, categories: Int32Array) -> None:
        self.images = 0
        self.cells = np.zeros((categories.size, CELLS), dtype=np.int32)
        """(tags, CELLS) images with a score in each step."""
        self._pairs = unchanged_images.UnchangedCounter(categories)

    @property
    def pairs(self) -> Int64Array:
        return self._pairs.pairs

    def add(self, batch: ScoreBatch) -> None:
        # Added in place: a table of all cells for every batch would take ten times as long.
        cells = batch.tag_ids.astype(np.int64) * CELLS + batch.scores // STEP
        np.add.at(self.cells.reshape(-1), cells, np.int32(1))
        self._pairs.add(batch)
        self.images += len(batch)


def _add_blocks(
    connection: Connection,
    model: Model,
    plan: counts.Plan,
    cells: npt.NDArray[np.int32],
    advance: Callable[[int], object],
) -> tuple[Int64Array, int]:
    """Add what current blocks have stored to `cells`. Returns their pairs, and the images of the whole collection."""
    flat, one = cells.reshape(-1), np.int32(1)
    for tag_ids, scores in counts.scores_of_tags(connection, model.id, plan.state, np.zeros(len(cells), np.int16)):
        np.add.at(flat, tag_ids * CELLS + scores // STEP, one)
    for first, steps, of_steps in counts.low_counts(connection, model, plan.state, None):
        cells[first : first + len(of_steps), steps.start : steps.stop] += of_steps.astype(np.int32)
    images = counts.number_of_images(connection, model.id, plan)
    advance(images)
    return counts.stored_pairs(connection, model.id, plan.state), images


def load(path: Path) -> Distribution | None:
    """Read a file of `Distribution.save`. None if it does not exist or is not such a file."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            if str(file["format"]) != _FORMAT:
                return None
            values: dict[str, Any] = {field.name: file[field.name] for field in fields(Distribution)}
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        return None
    values = {name: value if value.ndim else value.item() for name, value in values.items()}
    return Distribution(**values | {"counted_at": datetime.fromtimestamp(values["counted_at"], UTC)})
