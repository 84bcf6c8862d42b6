"""The precision that labels of a tag stand for: intervals against scipy, counts against scikit-learn, and coverage."""

from math import isnan

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_score

from db.scores import SCALE
from db.truth.calibration import By, Goal, best
from db.truth.labels import NOT_STORED, TagLabels
from db.truth.precision import Estimate, confusion_of, figures_at, precision_at, weights_of
from db.truth.wilson import wilson_interval

LINE = 4000
Collection = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]
"""Scores, and whether the tag is right."""


def labelled(*pairs: tuple[int, bool]) -> TagLabels:
    """From (score, right)."""
    scores, right = zip(*pairs, strict=True) if pairs else ((), ())
    return TagLabels(np.arange(len(pairs)), np.array(scores, np.int16), np.array(right, bool))


some_labels = st.lists(
    st.tuples(st.sampled_from([NOT_STORED, 100, 3999, LINE, 4001, SCALE]) | st.integers(100, SCALE), st.booleans()),
    max_size=30,
)


@settings(deadline=None)
@given(st.integers(1, 400), st.data())
def test_the_interval_is_scipys(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    expected = binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


@settings(deadline=None)
@given(some_labels)
def test_labels_below_the_line_say_nothing_of_the_precision(pairs: list[tuple[int, bool]]) -> None:
    found = precision_at(labelled(*pairs), LINE)
    above = [right for score, right in pairs if score >= LINE]
    assert (found.judged, found.right) == (len(above), sum(above))
    assert (found.low, found.high) == wilson_interval(sum(above), len(above))
    if above:
        assert found.value == pytest.approx(sum(above) / len(above))
        assert found.low <= found.value <= found.high
    else:
        assert isnan(found.value)
        assert (found.low, found.high) == (0, 1)


@settings(deadline=None)
@given(some_labels, st.sampled_from([1, 20, 33, 1000]), st.data())
def test_any_histogram_gives_a_share_within_its_interval(
    pairs: list[tuple[int, bool]], bins: int, data: st.DataObject
) -> None:
    """With empty bins, with labels where it has no image, and with none at all."""
    filled = data.draw(st.dictionaries(st.integers(0, bins - 1), st.integers(1, 10**7), max_size=8))
    found = precision_at(labelled(*pairs), LINE, [filled.get(number, 0) for number in range(bins)])
    assert 0 <= found.low <= found.high <= 1
    if found.judged:
        assert found.low - 1e-12 <= found.value <= found.high + 1e-12
        if found.right in {0, found.judged}:
            assert found.value == pytest.approx(found.right / found.judged)


def test_each_stratum_counts_by_its_images() -> None:
    """Four labels near the line, one right; two far above, both right; nine tenths of the images are up there."""
    labels = labelled((4010, True), (4020, False), (4030, False), (4040, False), (9010, True), (9020, True))
    histogram = [0] * 20
    histogram[0], histogram[8], histogram[18] = 10**6, 100, 900
    found = precision_at(labels, LINE, histogram)
    assert found.value == pytest.approx(0.1 * 0.25 + 0.9)
    effective = 1 / (0.1**2 / 4 + 0.9**2 / 2)
    assert (found.low, found.high) == pytest.approx(wilson_interval(found.value * effective, effective))
    # Images between the two belong to the nearest labels; a line in the middle of a bin takes half of it.
    histogram[9], histogram[17] = 50, 50
    assert precision_at(labels, LINE, histogram).value == pytest.approx((150 * 0.25 + 950) / 1100)
    upper = labelled((4300, False), (9300, True))
    assert precision_at(upper, 4250, histogram).value == pytest.approx((50 + 900) / (50 + 50 + 50 + 900))


def test_with_equal_weights_it_is_the_plain_share() -> None:
    labels = labelled(*((4000 + 500 * number + 10, number % 3 > 0) for number in range(12)))
    plain, stratified = (precision_at(labels, LINE, histogram) for histogram in (None, [7] * 20))
    assert (stratified.value, stratified.low, stratified.high) == pytest.approx((plain.value, plain.low, plain.high))


@pytest.fixture(scope="module")
def collection() -> Collection:
    """100,000 images: scores heaped near 0 and near 1, right the more often the higher they are."""
    rng = np.random.default_rng(1)
    probabilities = np.concatenate([rng.beta(0.5, 3, 50_000), rng.beta(5, 1.2, 50_000)])
    scores = np.clip(np.floor(probabilities * SCALE).astype(np.int64), 100, SCALE)
    return scores, rng.random(scores.size) < np.clip(scores / SCALE * 1.1 - 0.05, 0, 1) ** 1.5


@pytest.mark.parametrize("near", [0.0, 0.5, 0.75])
@pytest.mark.parametrize("number", [20, 100])
def test_the_interval_holds_the_precision_of_the_collection(collection: Collection, near: float, number: int) -> None:
    """In about 95 of 100 drawings or more, however many pictures are from the line. The plain one does not."""
    scores, right = collection
    above = np.flatnonzero(scores >= LINE)
    line = above[scores[above] < LINE + 300]
    histogram = np.bincount(np.minimum(scores // 10, 999), minlength=1000).tolist()
    precision = right[above].mean()
    rng = np.random.default_rng(2)

    def covered(found: list[Estimate]) -> float:
        return float(np.mean([one.low <= precision <= one.high for one in found]))

    stratified, plain = [], []
    for _ in range(500):
        ids = np.concatenate(
            [rng.choice(line, round(near * number), False), rng.choice(above, round((1 - near) * number), False)]
        )
        labels = TagLabels(ids, scores[ids].astype(np.int16), right[ids])
        stratified.append(precision_at(labels, LINE, histogram))
        plain.append(precision_at(labels, LINE))
    assert covered(stratified) >= 0.93
    assert np.mean([one.value for one in stratified]) == pytest.approx(precision, abs=0.03)
    if near:
        assert np.mean([one.value for one in plain]) < precision - 0.2
        assert covered(plain) < 0.3
    else:
        assert covered(plain) >= 0.92


@settings(deadline=None)
@given(some_labels)
def test_the_confusion_is_scikit_learns(pairs: list[tuple[int, bool]]) -> None:
    thresholds = [100, LINE, SCALE]
    found = confusion_of(labelled(*pairs), thresholds)
    assert found.tp.shape == found.fp.shape == found.fn.shape == found.tn.shape == (1, 3)
    scores, right = np.array([score for score, _ in pairs]), np.array([one for _, one in pairs], bool)
    for place, threshold in enumerate(thresholds):
        expected = confusion_matrix(right, scores >= threshold, labels=[False, True]) if pairs else np.zeros((2, 2))
        ours = [[found.tn[0, place], found.fp[0, place]], [found.fn[0, place], found.tp[0, place]]]
        np.testing.assert_array_equal(ours, expected)
        assert found.precision[0, place] == pytest.approx(
            precision_score(right, scores >= threshold, zero_division=0) if pairs else 0
        )


def test_the_best_threshold_is_found_from_it() -> None:
    labels = labelled((6000, True), (6000, True), (2000, False), (NOT_STORED, False))
    thresholds = list(range(100, SCALE + 1, 10))
    (place,), (reached,) = best(confusion_of(labels, thresholds), Goal(By.INFORMEDNESS))
    assert (thresholds[place], bool(reached)) == (4000, True)


def test_as_many_labels_on_either_side_tell_the_recall_of_the_collection() -> None:
    """24 above the line and 24 below it, of 50,000 of which a hundredth is above: a plain share is twice the truth."""
    rng = np.random.default_rng(5)
    scores = (SCALE * rng.beta(0.3, 4, 50_000)).astype(np.int16)
    right = rng.random(scores.size) < scores / SCALE
    above = scores >= LINE
    truth = right[above].sum() / right.sum()
    histogram = np.bincount(np.minimum(scores // 100, 99), minlength=100).tolist()
    sums = np.zeros((2, 2))
    for _ in range(300):
        drawn = np.concatenate([rng.choice(np.flatnonzero(side), 24, replace=False) for side in (above, ~above)])
        labels = TagLabels(np.sort(drawn), scores[np.sort(drawn)], right[np.sort(drawn)])
        weights = weights_of(labels, LINE, histogram, 0)
        assert weights.values.sum() == pytest.approx(1000 * scores[scores >= weights.lowest].size, rel=1e-3)
        for row, values in enumerate((weights.values, None)):
            found = confusion_of(labels, [LINE], values)
            sums[row] += found.tp[0, 0], found.fn[0, 0]
    weighted, plain = sums[:, 0] / sums.sum(axis=1)
    assert plain > 2 * truth
    assert weighted == pytest.approx(truth, rel=0.1)


def test_of_what_lies_below_all_labels_nothing_is_said() -> None:
    histogram = [10, 0, 40, 0, 50] * 20  # 100 in each stratum
    weights = weights_of(labelled((9_900, True), (3_120, True), (3_110, False)), LINE, histogram, 777)
    assert weights.lowest == 3_000
    assert weights.values.tolist() == [1000 * 1200, 1000 * 100, 1000 * 100]  # nothing crosses the line
    everything = weights_of(labelled((9_900, True), (NOT_STORED, False)), LINE, histogram, 777)
    assert everything.lowest == NOT_STORED
    assert everything.values.tolist() == [1000 * 1200, 1000 * (777 + 800)]
    assert weights_of(labelled(), LINE, histogram, 777).values.size == 0


@settings(deadline=None)
@given(some_labels, st.integers(0, SCALE), st.sampled_from([1, 20, 100]))
def test_labels_stand_for_all_images_from_the_lowest_one_on(
    pairs: list[tuple[int, bool]], line: int, bins: int
) -> None:
    weights = weights_of(labelled(*pairs), line, [7] * bins, 5)
    assert (weights.values >= 0).all()
    if any(score == NOT_STORED for score, _ in pairs):
        assert weights.values.sum() == pytest.approx(1000 * (7 * bins + 5), abs=len(pairs))
    elif pairs:
        assert weights.values.sum() <= 1000 * 7 * bins + len(pairs)
        assert 0 <= weights.lowest <= max(min(score for score, _ in pairs), 0)


def test_how_much_of_what_is_kept_was_looked_at_is_told() -> None:
    histogram = [100] * 20
    assert precision_at(labelled((4_100, True), (4_700, False)), LINE, histogram).covered == pytest.approx(2 / 12)
    assert precision_at(labelled(*((score, True) for score in range(4_000, SCALE, 500))), LINE, histogram).covered == 1
    assert precision_at(labelled((4_100, True)), LINE).covered == 1


def test_a_label_counts_what_it_weighs() -> None:
    found = confusion_of(labelled((9_000, True), (9_000, False), (100, True), (100, False)), [LINE], np.arange(1, 5))
    assert [int(part[0, 0]) for part in (found.tp, found.fp, found.fn, found.tn)] == [1, 2, 3, 4]


@settings(deadline=None)
@given(some_labels, st.lists(st.integers(1, 1000), min_size=30, max_size=30))
def test_every_figure_is_that_of_the_weighted_labels_within_its_interval(
    pairs: list[tuple[int, bool]], weights: list[int]
) -> None:
    known = labelled(*pairs)
    counts = np.array(weights[: len(pairs)], dtype=np.int64)
    found, weighted = figures_at(known, LINE, counts), confusion_of(known, [LINE], counts)
    for name, least in (("precision", 0), ("recall", 0), ("informedness", -1)):
        one: Estimate = getattr(found, name)
        if not one.judged:
            assert isnan(one.value)
            assert (one.low, one.high) == (least, 1)
            continue
        assert one.value == pytest.approx(getattr(weighted, name)[0, 0])
        assert least - 1e-9 <= one.low <= one.value + 1e-9
        assert one.value - 1e-9 <= one.high <= 1 + 1e-9


def test_with_equal_weights_recall_has_wilsons_interval_and_informedness_newcombes() -> None:
    """Newcombe 1998, table II, example (a): 56 of 70 against 48 of 80 is 0.2, from 0.0524 to 0.3339."""
    labels = labelled(*[(5000, True)] * 56, *[(3000, True)] * 14, *[(5000, False)] * 48, *[(3000, False)] * 32)
    found = figures_at(labels, LINE, np.full(150, 1000))
    assert (found.recall.low, found.recall.high) == pytest.approx(wilson_interval(56, 70))
    assert (found.precision.low, found.precision.high) == pytest.approx(wilson_interval(56, 104))
    assert found.informedness.value == pytest.approx(0.2)
    assert (found.informedness.low, found.informedness.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize("number", [10, 40])
def test_the_intervals_hold_the_figures_of_the_collection(collection: Collection, number: int) -> None:
    """In about 95 of 100 drawings or more, as many pictures from above the line as from below it."""
    scores, right = collection
    kept = scores >= LINE
    truth = {"recall": kept[right].mean(), "informedness": kept[right].mean() - kept[~right].mean()}
    histogram = np.bincount(np.minimum(scores // 100, 99), minlength=100).tolist()
    rng = np.random.default_rng(3)
    hits = dict.fromkeys(truth, 0)
    for _ in range(300):
        ids = np.concatenate([rng.choice(np.flatnonzero(side), number, replace=False) for side in (kept, ~kept)])
        known = TagLabels(ids, scores[ids].astype(np.int16), right[ids])
        found = figures_at(known, LINE, weights_of(known, LINE, histogram, 0).values)
        for name, value in truth.items():
            one: Estimate = getattr(found, name)
            hits[name] += one.low <= value <= one.high
    assert all(number / 300 > 0.9 for number in hits.values()), hits
