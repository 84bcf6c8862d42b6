"""How sure the figures are that rest on some labels of one tag.

Pictures that were drawn at random among those that keep the tag give a plain share, with the score interval of Wilson
("Probable inference, the law of succession, and statistical inference", JASA 1927), which stays inside of 0 and 1 and
holds for few labels too (Brown, Cai, DasGupta: "Interval estimation for a binomial proportion", Statist. Sci. 2001).

Pictures from near the line are the doubtful ones, and their plain share is far too low for all that is kept. With the
histogram of the tag's scores the labels are post-stratified (Cochran: "Sampling Techniques", 1977, 5A.9): the share of
each stratum of scores counts by the number of images in it. Weights that differ make labels worth less: n of them count
as Kish's effective (sum w)^2 / sum w^2 ("Survey Sampling", 1965), and Wilson's interval takes that number (Franco and
others: "Comparative study of confidence intervals for proportions in complex sample surveys", J. Surv. Stat. Methodol.
2019). It errs on the wide side. All of it supposes that within a stratum no picture was preferred for being right.

Recall is such a share too, of what the right labels stand for. Informedness is recall less the share of what is not so
and kept all the same: of two independent shares, whose difference takes Newcombe's interval from theirs ("Interval
estimation for the difference between independent proportions", Statist. Med. 1998, method 10).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np

from db.read.tag_batches import Int64Array
from db.scores import SCALE
from db.truth.evaluation import Confusion, FloatArray
from db.truth.labels import NOT_STORED, BoolArray, TagLabels

Z = 1.959963984540054
"""The normal quantile of a two-sided 95 %."""
STRATUM = 500
"""Score: the width of a stratum, 0.05, counted from the line. Narrow, since precision rises with the score."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share and its 95 % interval."""

    value: float
    """NaN where nothing was judged; the interval is all from 0 to 1 then."""
    low: float
    high: float
    right: int
    """Labels of those counted that the value is the share of: at or above the line those that say right."""
    judged: int
    """Labels that were counted: of precision, those at or above the line."""
    covered: float = 1.0
    """Of the images above the line, the share in ranges of scores that have a label. The others are taken to be like
    their neighbours; where they are many, the doubtful ones next to the line speak for the sure ones."""


def precision_at(labels: TagLabels, score: int, histogram: Sequence[int] | None = None) -> Estimate:
    """Of the images that keep the tag at `score`, the share that is right.

    Args:
        histogram: images of the whole collection by score, in bins of equal width from 0 to 1, the last one with 1. The
            bin in which the line lies counts by its part above the line. A stratum without a label is counted to the
            nearest one that has some, of two to the lower one, where precision is rather lower.
    """
    above = labels.scores >= score
    scores, right = labels.scores[above].astype(np.int64), labels.right[above]
    judged, hits = int(right.size), int(right.sum())
    if histogram is None or not judged:
        return Estimate(hits / judged if judged else nan, *wilson(hits, judged), hits, judged)
    weights = _images_above(np.asarray(histogram, dtype=np.int64), score)
    strata = np.minimum((scores - score) // STRATUM, weights.size - 1)
    present, places, counts = np.unique(strata, return_inverse=True, return_counts=True)
    # argmin takes the first of equals, which is the lower one.
    nearest = np.abs(np.arange(weights.size)[:, None] - present).argmin(axis=1)
    images = np.bincount(nearest, weights, minlength=present.size)
    # A histogram that knows of no image up there was made before these were tagged.
    shares = images / images.sum() if images.any() else counts / judged
    value = float((shares * np.bincount(places, right) / counts).sum())
    effective = 1 / float((shares**2 / counts).sum())
    covered = float(weights[present].sum() / weights.sum()) if weights.any() else 1.0
    return Estimate(value, *wilson(value * effective, effective), hits, judged, covered)


def wilson(hits: float, trials: float) -> tuple[float, float]:
    """(low, high) of the share that `hits` of `trials` stand for, 95 %. Numbers need not be whole: see the file's head.

    Of no trials it is (0, 1).
    """
    if not trials:
        return 0.0, 1.0
    centre = hits + Z**2 / 2
    reach = Z * sqrt(max(hits * (trials - hits) / trials, 0) + Z**2 / 4)
    return max((centre - reach) / (trials + Z**2), 0.0), min((centre + reach) / (trials + Z**2), 1.0)


@dataclass(frozen=True, slots=True)
class Weights:
    """How many images of the collection each label stands for."""

    values: Int64Array
    """(labels,) thousandths of an image, so that sums are whole numbers; 0 for a label that stands for none."""
    lowest: int
    """The score from which on they stand for the collection; `NOT_STORED` for all of it."""


def weights_of(labels: TagLabels, score: int, histogram: Sequence[int], not_stored: int) -> Weights:
    """Post-stratification for all four figures: as many are judged above a line as below it, where there are ten to a
    hundred times the images, and plain shares would tell of a recall that is far too high.

    Strata are `STRATUM` wide, from the line both ways, and one holds what is not stored. One without a label is counted
    to the nearest one on its side of the line that has some; but nothing is said of what lies below all labels, where
    tags are rarer than in any stratum that was looked at.

    Args:
        score: the line.
        histogram: images by score, in bins of equal width from 0 to 1. A bin counts by its middle.
        not_stored: images that score below the floor.
    """
    if not len(labels):
        return Weights(np.zeros(0, dtype=np.int64), SCALE)
    middles = (np.arange(len(histogram)) + 0.5) * (SCALE / len(histogram))
    below = -(-score // STRATUM)  # strata below the line; before them comes what is not stored
    of_bin = 1 + below + np.floor((middles - score) / STRATUM).astype(np.int64)
    images = np.bincount(of_bin, histogram, minlength=2 + below + (SCALE - score) // STRATUM)
    images[0] = not_stored
    of_label = np.where(labels.scores == NOT_STORED, 0, 1 + below + (labels.scores.astype(np.int64) - score) // STRATUM)
    present, places, counts = np.unique(of_label, return_inverse=True, return_counts=True)
    told = np.arange(present[0], images.size)
    across = (told[:, None] > below) != (present > below)
    nearest = (np.abs(told[:, None] - present) + across * images.size).argmin(axis=1)
    merged = np.bincount(nearest, images[told], minlength=present.size)
    values = np.rint(1000 * merged / counts).astype(np.int64)[places]
    lowest = NOT_STORED if present[0] == 0 else max(score + int(present[0] - 1 - below) * STRATUM, 0)
    return Weights(values, lowest)


def confusion_of(labels: TagLabels, thresholds: Sequence[int], weights: Int64Array | None = None) -> Confusion:
    """(1, thresholds) what the labels say of each threshold, as `Confusion` and `calibration.best` take it.

    Args:
        thresholds: scores at or above the model's floor.
        weights: (labels,) what each counts. None: 1.
    """
    counts = np.ones(len(labels), dtype=np.int64) if weights is None else weights
    kept = labels.scores >= np.asarray(thresholds, dtype=np.int64)[:, None]
    tp, fp = ((kept * (counts * chosen)).sum(axis=1)[None] for chosen in (labels.right, ~labels.right))
    support, all_ = int(counts[labels.right].sum()), int(counts.sum())
    return Confusion(tp, fp, support - tp, all_ - support - fp)


@dataclass(frozen=True, slots=True)
class Figures:
    """What weighted labels say of a threshold."""

    precision: Estimate
    recall: Estimate
    informedness: Estimate
    """NaN where no label is right, or none is wrong."""


def figures_at(labels: TagLabels, score: int, weights: Int64Array) -> Figures:
    """Precision, recall and informedness of what is kept at `score`, each with its interval.

    Args:
        weights: (labels,) of `weights_of`.
    """
    kept, right = labels.scores >= score, labels.right
    recall, fallout = _share(kept, right, weights), _share(kept, ~right, weights)
    value = recall.value - fallout.value
    low, high = -1.0, 1.0
    if recall.judged and fallout.judged:
        low = value - sqrt((recall.value - recall.low) ** 2 + (fallout.high - fallout.value) ** 2)
        high = value + sqrt((recall.high - recall.value) ** 2 + (fallout.value - fallout.low) ** 2)
    # As many labels as the smaller of its two shares has; what is right is no count of one share.
    informedness = Estimate(value, low, high, recall.right, min(recall.judged, fallout.judged))
    return Figures(_share(right, kept, weights), recall, informedness)


def _share(hit: BoolArray, of: BoolArray, weights: Int64Array) -> Estimate:
    """Of the labels `of`, the weighted share that is `hit`; labels without weight are left out."""
    of = of & (weights > 0)
    chosen, hits = weights[of].astype(np.float64), hit[of]
    if not chosen.size:
        return Estimate(nan, *wilson(0, 0), 0, 0)
    value = float(chosen[hits].sum() / chosen.sum())
    effective = float(chosen.sum() ** 2 / (chosen**2).sum())
    return Estimate(value, *wilson(value * effective, effective), int(hits.sum()), int(hits.size))


def _images_above(histogram: Int64Array, score: int) -> FloatArray:
    """Images in each stratum from the line upward; a bin counts by its middle, where it lies above the line."""
    edges = np.arange(histogram.size + 1) * (SCALE / histogram.size)
    low, high = np.maximum(edges[:-1], score), edges[1:]
    inside = np.clip((high - low) / (SCALE / histogram.size), 0, 1)
    strata = np.maximum((low + high) / 2 - score, 0) // STRATUM
    images: FloatArray = np.bincount(strata.astype(np.int64), histogram * inside).astype(np.float64)
    return images
