"""Precision, recall and informedness of one tag, with 95 % confidence intervals, estimated from some labels.

If images were drawn at random among those that keep the tag, precision is the proportion of right labels, with
Wilson's score interval (`db.truth.wilson`). The interval stays between 0 and 1 and holds for few labels too (Brown,
Cai, DasGupta: "Interval estimation for a binomial proportion", Statist. Sci. 2001).

Images near the threshold are the doubtful ones: their unweighted proportion is far below the precision of all images
that keep the tag. With the histogram of the tag's scores, labels are post-stratified (Cochran: "Sampling Techniques",
1977, 5A.9): the proportion of each score stratum is weighted by the number of images in the stratum. Unequal weights
reduce the effective sample size to Kish's (sum w)^2 / sum w^2 ("Survey Sampling", 1965), and Wilson's interval takes
that size (Franco and others: "Comparative study of confidence intervals for proportions in complex sample surveys",
J. Surv. Stat. Methodol. 2019). The interval is conservative. The estimates assume that within a stratum, whether an
image was labelled does not depend on whether the tag is right.

Recall is a weighted proportion too: of the images with the tag, those that keep it. Informedness is recall minus the
false positive rate. The two proportions are independent, so their difference takes Newcombe's interval ("Interval
estimation for the difference between independent proportions", Statist. Med. 1998, method 10).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np

from db.arrays.types import Int64Array
from db.scores import SCALE
from db.truth.evaluation import Confusion, FloatArray
from db.truth.labels import NOT_STORED, BoolArray, TagLabels
from db.truth.wilson import wilson_interval

STRATUM = 500
"""Score: the width of a stratum, 0.05, counted from the threshold. Narrow, since precision rises with the score."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimated proportion, or a difference of two, and its 95 % confidence interval."""

    value: float
    """NaN without labels; the interval of a proportion is then 0 to 1."""
    low: float
    high: float
    right: int
    """The numerator before weighting: for precision, labels at or above the threshold that say right."""
    judged: int
    """The denominator before weighting: for precision, labels at or above the threshold."""
    covered: float = 1.0
    """The fraction of the images at or above the threshold that lie in strata with a label. A stratum without labels
    takes the proportion of its nearest neighbour; if this fraction is small, doubtful images near the threshold decide
    for high scores."""


def precision_at(labels: TagLabels, score: int, histogram: Sequence[int] | None = None) -> Estimate:
    """Precision: the proportion that is right, of the images that keep the tag at a threshold.

    Args:
        score: the threshold, in ten-thousandths.
        histogram: (bins,) images of the whole collection by score, in bins of equal width from 0 to 1, the last one
            including 1. The bin that holds the threshold counts by its part above the threshold. A stratum without
            labels is merged into the nearest one that has some; of two equally near, into the lower one, where
            precision is usually lower. None: labels are not weighted.
    """
    above = labels.scores >= score
    scores, right = labels.scores[above].astype(np.int64), labels.right[above]
    judged, hits = int(right.size), int(right.sum())
    if histogram is None or not judged:
        return Estimate(hits / judged if judged else nan, *wilson_interval(hits, judged), hits, judged)
    weights = _images_above(np.asarray(histogram, dtype=np.int64), score)
    strata = np.minimum((scores - score) // STRATUM, weights.size - 1)
    present, stratum_of, counts = np.unique(strata, return_inverse=True, return_counts=True)
    # argmin takes the first of equals, which is the lower stratum.
    nearest = np.abs(np.arange(weights.size)[:, None] - present).argmin(axis=1)
    images = np.bincount(nearest, weights, minlength=present.size)
    # A histogram without images at these scores was made before the labelled images were tagged.
    shares = images / images.sum() if images.any() else counts / judged
    value = float((shares * np.bincount(stratum_of, right) / counts).sum())
    effective = 1 / float((shares**2 / counts).sum())
    covered = float(weights[present].sum() / weights.sum()) if weights.any() else 1.0
    return Estimate(value, *wilson_interval(value * effective, effective), hits, judged, covered)


@dataclass(frozen=True, slots=True)
class Weights:
    """The number of images of the collection that each label represents."""

    values: Int64Array
    """(labels,) thousandths of an image, so that sums are exact integers; 0 for a label that represents none."""
    lowest: int
    """The lowest score of the part of the collection that is represented; `NOT_STORED` for the whole collection."""


def weights_of(labels: TagLabels, score: int, histogram: Sequence[int], not_stored: int) -> Weights:
    """Post-stratification weights for all four cells of the confusion matrix.

    People label about as many images above the threshold as below it, although ten to a hundred times as many images
    lie below. Unweighted proportions would overestimate recall by far.

    Strata are `STRATUM` wide, counted from the threshold in both directions; one more holds the images below the floor.
    A stratum without labels is merged into the nearest one with labels on the same side of the threshold. Strata below
    all labels are left out: tags are rarer there than in any labelled stratum.

    Args:
        score: the threshold, in ten-thousandths.
        histogram: (bins,) images by score, in bins of equal width from 0 to 1. A bin counts by its middle.
        not_stored: number of images whose score is below the floor.
    """
    if not len(labels):
        return Weights(np.zeros(0, dtype=np.int64), SCALE)
    middles = (np.arange(len(histogram)) + 0.5) * (SCALE / len(histogram))
    below = -(-score // STRATUM)  # strata below the threshold; stratum 0, before them, is below the floor
    of_bin = 1 + below + np.floor((middles - score) / STRATUM).astype(np.int64)
    images = np.bincount(of_bin, histogram, minlength=2 + below + (SCALE - score) // STRATUM)
    images[0] = not_stored
    of_label = np.where(labels.scores == NOT_STORED, 0, 1 + below + (labels.scores.astype(np.int64) - score) // STRATUM)
    present, stratum_of, counts = np.unique(of_label, return_inverse=True, return_counts=True)
    represented = np.arange(present[0], images.size)
    across = (represented[:, None] > below) != (present > below)
    nearest = (np.abs(represented[:, None] - present) + across * images.size).argmin(axis=1)
    merged = np.bincount(nearest, images[represented], minlength=present.size)
    values = np.rint(1000 * merged / counts).astype(np.int64)[stratum_of]
    lowest = NOT_STORED if present[0] == 0 else max(score + int(present[0] - 1 - below) * STRATUM, 0)
    return Weights(values, lowest)


def confusion_of(labels: TagLabels, thresholds: Sequence[int], weights: Int64Array | None = None) -> Confusion:
    """The (1, thresholds) confusion matrix of the labels, as `calibration.best` takes it.

    Args:
        thresholds: scores at or above the model's floor.
        weights: (labels,) the weight of each label. None: 1.
    """
    counts = np.ones(len(labels), dtype=np.int64) if weights is None else weights
    kept = labels.scores >= np.asarray(thresholds, dtype=np.int64)[:, None]
    tp, fp = ((kept * (counts * chosen)).sum(axis=1)[None] for chosen in (labels.right, ~labels.right))
    support, all_ = int(counts[labels.right].sum()), int(counts.sum())
    return Confusion(tp, fp, support - tp, all_ - support - fp)


@dataclass(frozen=True, slots=True)
class Figures:
    precision: Estimate
    recall: Estimate
    informedness: Estimate
    """NaN if no label is right, or none is wrong."""


def figures_at(labels: TagLabels, score: int, weights: Int64Array) -> Figures:
    """Precision, recall and informedness at a threshold, each with its interval.

    Args:
        score: the threshold, in ten-thousandths.
        weights: (labels,) the values of `weights_of`.
    """
    kept, right = labels.scores >= score, labels.right
    recall, fallout = _share(kept, right, weights), _share(kept, ~right, weights)
    value = recall.value - fallout.value
    low, high = -1.0, 1.0
    if recall.judged and fallout.judged:
        low = value - sqrt((recall.value - recall.low) ** 2 + (fallout.high - fallout.value) ** 2)
        high = value + sqrt((recall.high - recall.value) ** 2 + (fallout.value - fallout.low) ** 2)
    # `judged` is that of the smaller of the two samples. A difference has no numerator: `right` is that of recall.
    informedness = Estimate(value, low, high, recall.right, min(recall.judged, fallout.judged))
    return Figures(_share(right, kept, weights), recall, informedness)


def _share(hit: BoolArray, of: BoolArray, weights: Int64Array) -> Estimate:
    """The weighted proportion of `hit` among the labels `of`; labels of weight 0 are left out."""
    of = of & (weights > 0)
    chosen, hits = weights[of].astype(np.float64), hit[of]
    if not chosen.size:
        return Estimate(nan, *wilson_interval(0, 0), 0, 0)
    value = float(chosen[hits].sum() / chosen.sum())
    effective = float(chosen.sum() ** 2 / (chosen**2).sum())
    return Estimate(value, *wilson_interval(value * effective, effective), int(hits.sum()), int(hits.size))


def _images_above(histogram: Int64Array, score: int) -> FloatArray:
    """(strata,) images in each stratum from the threshold upward; a bin counts by the middle of its part above."""
    edges = np.arange(histogram.size + 1) * (SCALE / histogram.size)
    low, high = np.maximum(edges[:-1], score), edges[1:]
    inside = np.clip((high - low) / (SCALE / histogram.size), 0, 1)
    strata = np.maximum((low + high) / 2 - score, 0) // STRATUM
    images: FloatArray = np.bincount(strata.astype(np.int64), histogram * inside).astype(np.float64)
    return images
