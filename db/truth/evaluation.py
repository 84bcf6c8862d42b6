"""Evaluation: confusion matrices of stored scores at many thresholds from one pass, and the usual metrics.

`Confusion` holds tp (given and kept), fp (kept, not given), fn (given, not kept) and tn (neither). A score below the
floor is below every threshold that may be asked for, so the counts are exact. Images without known truth do not count;
images that are known to have no tag do. If people judged single tags (`db.truth.labels`), only these tags count, and
the number of images differs from tag to tag.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Connection

from db.arrays.types import Int16Array, Int64Array
from db.ledger import models
from db.ledger.models import Model
from db.policy.policies import Cut, Policy, resolve
from db.read import tag_batches
from db.read.tag_batches import TagBatch, read_tag_batches
from db.schema import predictions
from db.scores import SCALE
from db.truth.truth import Truth

FloatArray = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]

_IDS_AT_ONCE = 10_000
"""Ids in one IN list: below the parameter limit of both databases (32,766 in SQLite)."""
_DENSE = 5
"""If at least one in this many images is labelled, one scan is faster than looking up each image."""
_TAGS_AT_ONCE = 256
"""256 tags at 1,000 thresholds are 2 MB per array."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """Confusion matrices: arrays of one shape, (tags,), (thresholds,) or (tags, thresholds).

    0 / 0 is 0, as with scikit-learn's `zero_division=0`, except in informedness.
    """

    tp: Int64Array
    fp: Int64Array
    fn: Int64Array
    tn: Int64Array

    @property
    def precision(self) -> FloatArray:
        """The fraction of kept tags that were given: tp / (tp + fp)."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> FloatArray:
        """The fraction of given tags that are kept: tp / (tp + fn)."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> FloatArray:
        return self.f_beta(1)

    def f_beta(self, beta: float) -> FloatArray:
        """F-beta: recall counts beta times as much as precision (van Rijsbergen 1979)."""
        hits = (1 + beta**2) * self.tp
        return _ratio(hits, hits + beta**2 * self.fn + self.fp)

    @property
    def informedness(self) -> FloatArray:
        """Bookmaker's Informedness, TPR + TNR - 1 (Powers 2003): 0 is chance, 1 perfect.

        NaN without positives or without negatives: one of the two rates is then undefined.
        """
        positives, negatives = self.tp + self.fn, self.tn + self.fp
        value = _ratio(self.tp, positives) + _ratio(self.tn, negatives) - 1
        return np.where((positives > 0) & (negatives > 0), value, np.nan)

    def summed(self) -> "Confusion":
        """The sums over the first axis, the tags."""
        return Confusion(*(getattr(self, one.name).sum(axis=0) for one in fields(self)))

    def at(self, *index: Any) -> "Confusion":
        """Index all four arrays as numpy does."""
        return Confusion(*(getattr(self, one.name)[index] for one in fields(self)))


@dataclass(frozen=True, slots=True)
class Metrics:
    """(thresholds,) each."""

    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    informedness: FloatArray


METRICS = tuple(one.name for one in fields(Metrics))


@dataclass(frozen=True, slots=True)
class Counts:
    """Histograms of one pass. `positives` and `kept` count a score at the highest threshold that it reaches."""

    thresholds: Int16Array
    """(thresholds,) scores, ascending."""
    positives: Int32Array
    """(tags, thresholds) scores of tags that were given."""
    kept: Int32Array
    """(tags, thresholds) scores of all tags."""
    support: Int64Array
    """(tags,) images to which each tag was given, whether its score is stored or not."""
    images: int
    """Images with known truth."""
    judged: Int64Array | None = None
    """(tags,) images on which each tag was judged; None: all of them."""

    @property
    def judged_on(self) -> Int64Array:
        """(tags,) images on which the truth of each tag is known."""
        return np.full_like(self.support, self.images) if self.judged is None else self.judged

    def chunks(self) -> Iterator[tuple[slice, Confusion]]:
        """Yield (slice of tags, (tags, thresholds) confusion), some hundred tags at a time to bound memory."""
        for first in range(0, self.support.size, _TAGS_AT_ONCE):
            tags = slice(first, first + _TAGS_AT_ONCE)
            yield tags, self.of(tags)

    def of(self, tags: slice) -> Confusion:
        """The (tags, thresholds) confusion of a slice of tags."""
        tp, kept = _at_or_above(self.positives[tags]), _at_or_above(self.kept[tags])
        return _confusion(tp, kept, self.support[tags, None], self.judged_on[tags, None])

    def of_cut(self, cut: Cut) -> Confusion:
        """The (tags,) confusion of a cut whose thresholds are all in `thresholds`, or NEVER."""
        first = np.searchsorted(self.thresholds, cut.scores)
        reached = np.arange(self.thresholds.size)[None] >= first[:, None]
        tp, all_ = (np.where(reached, table, 0).sum(axis=1, dtype=np.int64) for table in (self.positives, self.kept))
        return _confusion(tp, all_, self.support, self.judged_on)

    def micro(self) -> Confusion:
        """(thresholds,) the sums over all tags."""
        parts = [part.summed() for _, part in self.chunks()]
        return Confusion(*(np.sum([getattr(part, one.name) for part in parts], axis=0) for one in fields(Confusion)))

    def macro(self, min_support: int = 1) -> Metrics:
        """(thresholds,) means over tags, as the function `macro` defines them."""
        return macro((part for _, part in self.chunks()), min_support)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Counts at thresholds, and confusions of policies."""

    counts: Counts
    cuts: list[Confusion]
    """(tags,) each, in the order of the argument `cuts`."""


def evaluate(
    connection: Connection,
    model: Model,
    truth: Truth,
    thresholds: Sequence[int],
    cuts: Sequence[Cut] = (),
    *,
    advance: Callable[[int], object] = lambda _: None,
) -> Evaluation:
    """Compare stored scores with the truth, in one pass.

    Args:
        thresholds: scores at or above the model's floor, in any order.
        cuts: resolved policies.
        advance: called after each batch with its number of labelled images.

    Raises:
        ThresholdError: a threshold is below the floor.
    """
    tag_list = models.tag_names(connection, model.id)
    tags = len(tag_list)
    if thresholds:
        resolve(model, tag_list, Policy(default=min(thresholds)))
    steps = np.unique(np.array(thresholds, dtype=np.int16))
    bin_of = np.searchsorted(steps, np.arange(SCALE + 2), side="right") - 1
    positives, everything = (np.zeros(tags * steps.size, dtype=np.int32) for _ in range(2))
    support = np.zeros(tags, dtype=np.int64)
    judged = np.zeros(tags, dtype=np.int64)
    by_cut = [np.zeros((2, tags), dtype=np.int64) for _ in cuts]
    images = 0
    lowest = min([*steps[:1].tolist(), *(cut.lowest for cut in cuts)])
    for batch, positions in labelled_images(connection, model, truth, lowest, tags):
        labelled = positions >= 0
        images += int(labelled.sum())
        support += np.bincount(truth.pairs(positions)[1], minlength=tags)
        given = truth.given(batch, positions, tags)
        counts = truth.known(batch, positions, tags)
        if truth.judged is not None:
            judged += np.bincount(truth.judged.of(positions)[1], minlength=tags)
        bins = bin_of[batch.scores]
        if steps.size:
            cells = batch.tag_ids.astype(np.int64) * steps.size + bins
            # Not `bincount`: for each batch it returns an array of the size of the whole table.
            np.add.at(everything, cells[counts & (bins >= 0)], np.int32(1))
            np.add.at(positives, cells[given & (bins >= 0)], np.int32(1))
        for cut, sums in zip(cuts, by_cut, strict=True):
            chosen = tag_batches.kept_mask(batch, cut)
            sums[0] += np.bincount(batch.tag_ids[chosen & given], minlength=tags)
            sums[1] += np.bincount(batch.tag_ids[chosen & counts], minlength=tags)
        advance(int(labelled.sum()))
    shape = (tags, steps.size)
    by_tag = None if truth.judged is None else judged
    found = Counts(steps, positives.reshape(shape), everything.reshape(shape), support, images, by_tag)
    return Evaluation(found, [_confusion(tp, all_, support, found.judged_on) for tp, all_ in by_cut])


def labelled_images(
    connection: Connection,
    model: Model,
    truth: Truth,
    lowest: int,
    tags: int,
    *,
    where: ColumnElement[bool] | None = None,
) -> Iterator[tuple[TagBatch, Int64Array]]:
    """Read the scores of labelled images.

    Args:
        lowest: a score; lower ones are not read.
        tags: number of tags of the model.
        where: a condition on `predictions` and `images`.

    Yields:
        A batch, and the (images,) positions of its images in the truth. A batch may hold images without truth: their
        position is -1.
    """
    cut = Cut(np.full(tags, lowest, dtype=np.int16), model.floor)
    for part in _conditions(truth):
        condition = part if where is None else part & where
        for batch in read_tag_batches(connection, model, cut, where=condition):
            yield batch, truth.positions(batch.image_ids)


def macro(parts: Iterable[Confusion], min_support: int = 1) -> Metrics:
    """Macro averages: means over the tags with at least `min_support` positive images.

    Args:
        parts: (tags, thresholds) each, disjoint sets of tags.

    Returns:
        (thresholds,) each. Informedness is averaged over tags that also have a negative image. A mean over no tag is
        NaN.
    """
    sums: dict[str, FloatArray | float] = dict.fromkeys(METRICS, 0.0)
    tags = dict.fromkeys(METRICS, 0)
    for part in parts:
        enough = (part.tp + part.fn)[:, 0] >= max(min_support, 1)
        counted = part.at(enough)
        for name in METRICS:
            values: FloatArray = getattr(counted, name)
            sums[name] = sums[name] + np.nansum(values, axis=0)
            tags[name] += int((~np.isnan(values[:, 0])).sum())
    means = (np.asarray(sums[name], dtype=np.float64) / (tags[name] or np.nan) for name in METRICS)
    return Metrics(*means)


def micro(confusion: Confusion) -> Metrics:
    """Micro averages: the metrics of a summed confusion. Informedness may be NaN, as in `Confusion`."""
    return Metrics(*(np.asarray(getattr(confusion, name), dtype=np.float64) for name in METRICS))


def as_column(confusion: Confusion) -> Confusion:
    """Reshape (tags,) to (tags, 1): a policy in place of one threshold."""
    return confusion.at(slice(None), None)


def _conditions(truth: Truth) -> Iterator[ColumnElement[bool]]:
    """Conditions for the images to read: all between the first and the last labelled one, or lists of labelled ones."""
    ids = truth.image_ids
    if not ids.size:
        return
    if int(ids[-1] - ids[0]) < _DENSE * ids.size:
        yield predictions.c.image_id.between(int(ids[0]), int(ids[-1]))
        return
    for first in range(0, ids.size, _IDS_AT_ONCE):
        yield predictions.c.image_id.in_(ids[first : first + _IDS_AT_ONCE].tolist())


def _confusion(tp: Int64Array, kept: Int64Array, support: Int64Array, judged: Int64Array) -> Confusion:
    fp = kept - tp
    return Confusion(tp, fp, support - tp, judged - support - fp)


def _at_or_above(by_bin: Int32Array) -> Int64Array:
    sums: Int64Array = np.cumsum(by_bin[:, ::-1], axis=1, dtype=np.int64)[:, ::-1]
    return sums


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> FloatArray:
    ratio: FloatArray = np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) > 0)
    return ratio
