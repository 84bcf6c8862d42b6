"""Metrics and calibration against scikit-learn, on counts made from dense scores, and curves that can be looked at."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import (
    confusion_matrix,
    fbeta_score,
    multilabel_confusion_matrix,
    precision_recall_fscore_support,
)

from db.errors import SettingsError, ThresholdError
from db.ledger.models import Tag
from db.policy.policies import Cut, Policy
from db.read.histograms import Histogram
from db.scores import NEVER, SCALE
from db.truth.calibration import By, Calibration, Goal, best, calibrate, grid
from db.truth.evaluation import METRICS, Confusion, Counts, macro, micro
from db.truth.pairs import Pairs
from db.truth.truth import Found, Truth
from tagonce.output import plots
from tagonce.output.metric_tables import parse_range

Scores = npt.NDArray[np.int64]
Given = npt.NDArray[np.bool_]

FLOOR = 100


def counted(scores: Scores, truth: Given, thresholds: list[int]) -> Counts:
    """By the definition, from (images, tags) scores."""
    steps = np.array(thresholds)
    edges = np.append(steps, NEVER)

    def bins(chosen: Given) -> npt.NDArray[np.int32]:
        return np.array(
            [np.histogram(scores[chosen[:, tag], tag], edges)[0] for tag in range(scores.shape[1])], np.int32
        )

    return Counts(
        steps.astype(np.int16), bins(truth), bins(np.ones_like(truth)), truth.sum(axis=0).astype(np.int64), len(scores)
    )


@st.composite
def some_data(draw: st.DrawFn) -> tuple[Scores, Given]:
    """A few images and tags; tags that all have, that none has, and that are never stored are common."""
    shape = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    values = st.sampled_from([0, 99, FLOOR, 101, 3499, 3500, 9999, SCALE]) | st.integers(0, SCALE)
    return draw(arrays(np.int64, shape, elements=values)), draw(arrays(np.bool_, shape))


# ── metrics ──


@given(some_data(), st.sampled_from([FLOOR, 3500, SCALE]))
def test_the_metrics_are_scikit_learns(data: tuple[Scores, Given], threshold: int) -> None:
    scores, truth = data
    steps = sorted({FLOOR, 101, 3500, threshold, SCALE})
    counts, place = counted(scores, truth, steps), steps.index(threshold)
    kept = scores >= threshold
    # Indicator matrices of one column mean a binary problem to scikit-learn, so a column that is empty is added.
    padded = [np.column_stack([one, np.zeros(len(one), bool)]) for one in (truth, kept)]
    labels = list(range(scores.shape[1]))

    by_tag = counts.of(slice(None)).at(slice(None), place)
    expected = multilabel_confusion_matrix(*padded, labels=labels)
    np.testing.assert_array_equal(
        np.stack([by_tag.tn, by_tag.fp, by_tag.fn, by_tag.tp], axis=1).reshape(-1, 2, 2), expected
    )
    supported = [tag for tag in labels if truth[:, tag].any()]
    for average, metrics, tags in (("micro", micro(counts.micro()), labels), ("macro", counts.macro(), supported)):
        ours = [metrics.precision[place], metrics.recall[place], metrics.f1[place]]
        if not tags:
            assert np.isnan(ours).all()
            continue
        theirs = precision_recall_fscore_support(*padded, labels=tags, average=average, zero_division=0)[:3]
        np.testing.assert_allclose(ours, theirs)
    np.testing.assert_array_equal(by_tag.f_beta(2), fbeta_of(padded, labels, 2))


def fbeta_of(padded: list[Given], labels: list[int], beta: float) -> npt.NDArray[np.float64]:
    return np.asarray(fbeta_score(*padded, beta=beta, labels=labels, average=None, zero_division=0))


@given(some_data())
def test_informedness_is_recall_of_both_classes_less_one(data: tuple[Scores, Given]) -> None:
    """A tag that was given to all images or to none has none, and is not in the mean."""
    scores, truth = data
    counts, kept = counted(scores, truth, [FLOOR, 3500]), scores >= 3500
    expected = [
        kept[truth[:, tag], tag].mean() + (~kept[~truth[:, tag], tag]).mean() - 1
        if 0 < truth[:, tag].sum() < len(truth)
        else np.nan
        for tag in range(scores.shape[1])
    ]
    found = counts.of(slice(None)).at(slice(None), 1).informedness
    np.testing.assert_allclose(found, expected, atol=1e-12)
    known = [value for value in expected if not np.isnan(value)]
    assert counts.macro().informedness[1] == pytest.approx(np.mean(known) if known else np.nan, nan_ok=True)


def test_macro_leaves_out_tags_below_the_support() -> None:
    scores = np.array([[9000, 9000], [9000, 0], [0, 9000]])
    truth = np.array([[True, True], [True, False], [False, False]])
    counts = counted(scores, truth, [5000])
    assert counts.macro(2).precision.tolist() == [1]
    assert counts.macro(1).precision.tolist() == [0.75]
    assert np.isnan(counts.macro(3).precision).all()


@given(some_data(), st.lists(st.sampled_from([FLOOR, 3500, SCALE, NEVER]), min_size=4, max_size=4))
def test_a_policy_is_read_from_the_same_counts(data: tuple[Scores, Given], thresholds: list[int]) -> None:
    scores, truth = data
    cut = np.array(thresholds[: scores.shape[1]], np.int16)
    found = counted(scores, truth, [FLOOR, 3500, SCALE]).of_cut(Cut(cut, FLOOR))
    kept = scores >= cut
    for name, expected in (("tp", kept & truth), ("fp", kept & ~truth), ("fn", ~kept & truth), ("tn", ~kept & ~truth)):
        np.testing.assert_array_equal(getattr(found, name), expected.sum(axis=0))


@settings(deadline=None)
@given(some_data(), st.data())
def test_of_tags_judged_one_by_one_only_these_count(data: tuple[Scores, Given], more: st.DataObject) -> None:
    """Each tag has images of its own: what the rest holds changes nothing."""
    scores, truth = data
    known = more.draw(arrays(np.bool_, truth.shape))
    steps = np.array([FLOOR, 3500, SCALE])
    bins = [
        np.array([np.histogram(scores[one[:, tag], tag], np.append(steps, NEVER))[0] for tag in range(len(truth[0]))])
        for one in (known & truth, known)
    ]
    counts = Counts(
        steps.astype(np.int16),
        *(table.astype(np.int32) for table in bins),
        (known & truth).sum(axis=0).astype(np.int64),
        int(known.any(axis=1).sum()),
        known.sum(axis=0).astype(np.int64),
    )
    cut = Cut(np.full(truth.shape[1], 3500, np.int16), FLOOR)
    for found in (counts.of(slice(None)).at(slice(None), 1), counts.of_cut(cut)):
        for tag in range(truth.shape[1]):
            of_tag = truth[known[:, tag], tag], scores[known[:, tag], tag] >= 3500
            expected = confusion_matrix(*of_tag, labels=[False, True]) if known[:, tag].any() else np.zeros((2, 2))
            ours = [[found.tn[tag], found.fp[tag]], [found.fn[tag], found.tp[tag]]]
            np.testing.assert_array_equal(ours, expected)


# ── calibration ──


def test_the_grid_is_every_thousandth_and_the_floor() -> None:
    assert grid(100) == list(range(100, 10_001, 10))
    assert grid(105)[:3] == [105, 110, 120]
    assert grid(0)[:2] == [0, 10]
    assert grid(SCALE) == [SCALE]


def calibrated(scores: Scores, truth: Given, goal: Goal, default: int | None = None) -> Calibration:
    tags = [Tag(f"t{tag}") for tag in range(scores.shape[1])]
    return calibrate(counted(scores, truth, grid(FLOOR)), tags, goal, default=default)


@given(some_data(), st.sampled_from([0.5, 1.0, 2.0]))
def test_the_best_f_beta_is_the_best_of_scikit_learn_over_the_grid(data: tuple[Scores, Given], beta: float) -> None:
    scores, truth = data
    policy = calibrated(scores, truth, Goal(By.F_BETA, beta, min_support=1)).policy
    for tag in range(scores.shape[1]):
        if not truth[:, tag].any() or truth[:, tag].all():
            assert f"t{tag}" not in policy.tags
            continue
        # Between two neighbouring scores nothing changes: the scores' own places on the grid are all there is to try.
        steps = {FLOOR, *(min(-(-int(score) // 10) * 10, SCALE) for score in scores[:, tag] if score >= FLOOR)}
        reachable = {
            step: fbeta_score(truth[:, tag], scores[:, tag] >= step, beta=beta, zero_division=0)
            for step in steps | {min(step + 10, SCALE) for step in steps}
        }
        chosen = scores[:, tag] >= policy.tags[f"t{tag}"]
        reached = fbeta_score(truth[:, tag], chosen, beta=beta, zero_division=0)
        assert reached == pytest.approx(max(reachable.values()))


@given(some_data(), st.sampled_from([0.5, 0.9, 1.0]))
def test_a_minimum_precision_is_kept_or_the_tag_is_off(data: tuple[Scores, Given], least: float) -> None:
    scores, truth = data
    result = calibrated(scores, truth, Goal(By.F_BETA, min_precision=least, min_support=1))
    for name, threshold in result.policy.tags.items():
        tag = int(name[1:])
        assert (threshold == NEVER) == (name in result.off)
        if threshold != NEVER:
            assert truth[scores[:, tag] >= threshold, tag].mean() >= least
        else:
            for step in sorted({FLOOR, 3500, SCALE}):
                kept = truth[scores[:, tag] >= step, tag]
                assert not kept.size or kept.mean() < least or not kept.any()


def test_of_equally_good_thresholds_the_middle_is_taken() -> None:
    """Nothing lies above 0.2 and up to 0.6: 0.201 to 0.6 are all perfect, and the middle, 0.4005, is rounded down."""
    scores = np.array([[6000], [6000], [2000], [2000]])
    truth = np.array([[True], [True], [False], [False]])
    for by in By:
        assert calibrated(scores, truth, Goal(by, min_support=2)).policy.tags == {"t0": 4000}


def test_the_widest_of_separate_stretches_is_taken() -> None:
    hits = np.array([[5, 9, 9, 1, 9, 9, 9, 9, 2, 9]])
    one = np.ones_like(hits)
    confusion = Confusion(hits, one, one, one)
    places, reached = best(confusion, Goal(By.F_BETA))
    assert places.tolist() == [5]
    assert reached.tolist() == [True]


def test_without_support_a_tag_is_left_alone() -> None:
    """The sums over the tags that people named say nothing of the others, which keep the model's own threshold."""
    scores = np.array([[6000, 5000, 9000], [6000, 0, 9000], [2000, 0, 9000]])
    truth = np.array([[True, True, False], [True, False, False], [False, False, False]])
    assert calibrated(scores, truth, Goal(min_support=2)).policy == Policy(tags={"t0": 4000})
    assert calibrated(scores, truth, Goal(min_support=2), default=7000).policy == Policy(7000, tags={"t0": 4000})


@pytest.mark.parametrize("by", By)
def test_a_tag_that_all_images_have_is_left_alone(by: By) -> None:
    """No image says what the tag is not: it was switched off, or kept everywhere."""
    scores, truth = np.array([[9000], [8000], [100]]), np.array([[True], [True], [True]])
    assert calibrated(scores, truth, Goal(by, min_support=1)).policy.is_empty


def test_a_tag_that_the_model_cannot_tell_is_off() -> None:
    """Given where it scores low, not given where it scores high: nothing beats keeping nothing."""
    scores, truth = np.array([[200], [9000]]), np.array([[True], [False]])
    result = calibrated(scores, truth, Goal(min_support=1))
    assert result.off == ["t0"]
    assert result.policy == Policy(tags={"t0": NEVER})


def test_out_of_reach_of_the_recall_the_highest_recall_counts() -> None:
    scores = np.array([[9000], [5000], [50], [4000]])
    truth = np.array([[True], [True], [True], [False]])
    result = calibrated(scores, truth, Goal(min_precision=1, min_recall=0.9, min_support=1))
    assert result.short == ["t0"]
    assert 4000 < result.policy.tags["t0"] <= 5000


def test_a_tag_of_single_judgements_needs_one_that_says_wrong() -> None:
    """Else nothing speaks for any threshold. All other tags stay at the model's own."""
    scores = np.array([[6000, 5000, 700], [6000, 6000, 700], [2000, 0, 700]])
    truth = np.array([[True, True, False], [True, True, False], [False, False, False]])
    all_known = counted(scores, truth, grid(FLOOR))
    counts = replace(all_known, judged=np.array([3, 2, 3]))
    tags = [Tag(f"t{tag}") for tag in range(3)]
    result = calibrate(counts, tags, Goal(min_support=2))
    assert result.policy == Policy(tags={"t0": 4000})
    assert calibrate(counts, tags, Goal(min_support=2), default=7000).policy == Policy(7000, tags={"t0": 4000})
    assert calibrate(counts, tags, Goal(min_support=3)).policy.is_empty


# ── thresholds as people write them ──


def test_a_range_holds_both_ends() -> None:
    assert parse_range("0.1..0.4:0.1") == [1000, 2000, 3000, 4000]
    assert parse_range("0.1..0.35:0.1") == [1000, 2000, 3000]


@pytest.mark.parametrize("text", ["0.1", "0.1..0.4", "0.4..0.1:0.1", "0.1..0.4:0", "a..b:c", "..:", "0.1-0.4:0.1"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ThresholdError, match="FROM..TO:STEP"):
        parse_range(text)


# ── truth as arrays ──


def test_a_share_is_set_aside_by_image() -> None:
    """About that share; the same images each time, also when others join them; nothing lost, nothing twice."""
    ids = np.arange(1, 10_001)
    truth = Truth("t", ids, np.arange(10_001), (ids % 7).astype(np.int16), Found())
    rest, aside = truth.split(0.2)
    assert len(aside) == pytest.approx(2_000, rel=0.1)
    np.testing.assert_array_equal(np.sort(np.concatenate([rest.image_ids, aside.image_ids])), ids)
    for part in (rest, aside):
        np.testing.assert_array_equal(part.tag_ids, part.image_ids % 7)
    half = Truth("t", ids[::2], np.arange(5_001), (ids[::2] % 7).astype(np.int16), Found())
    np.testing.assert_array_equal(half.split(0.2)[1].image_ids, np.intersect1d(aside.image_ids, ids[::2]))


def test_what_was_judged_is_split_with_its_images() -> None:
    ids = np.arange(1, 1_001)
    judged = Pairs(np.arange(0, 2_001, 2), np.repeat(ids % 7, 2).astype(np.int16))
    truth = Truth("t", ids, np.arange(1_001), (ids % 7).astype(np.int16), Found(), judged)
    for part in truth.split(0.2):
        assert part.judged is not None
        np.testing.assert_array_equal(part.judged.offsets, np.arange(0, 2 * len(part) + 1, 2))
        np.testing.assert_array_equal(part.judged.tag_ids, np.repeat(part.image_ids % 7, 2))
    everything, nothing = truth.split(0.0)
    assert (len(everything), len(nothing)) == (1_000, 0)
    assert nothing.judged is not None
    assert nothing.judged.offsets.tolist() == [0]


# ── curves ──


@pytest.fixture
def counts() -> Counts:
    rng = np.random.default_rng(7)
    truth = rng.random((200, 3)) < [0.5, 0.1, 0]
    scores = np.where(truth, rng.integers(0, SCALE + 1, truth.shape), rng.integers(0, 6000, truth.shape))
    return counted(scores, truth, grid(FLOOR, 100))


def test_curves_in_svg_say_what_they_show(counts: Counts, tmp_path: Path) -> None:
    plots.save_overview(tmp_path / "o.svg", "tiny $_$, 200 images", counts)
    plots.save_tag(tmp_path / "t.svg", "tag", counts, 1)
    plots.save_histogram(tmp_path / "h.svg", "tag", Histogram(10, [3, 0, 2]))
    for name, words in (
        (
            "o.svg",
            ["tiny $_$, 200 images", "recall", "precision", "threshold (probability)", "micro, best F1", "macro"],
        ),
        ("t.svg", ["informedness, best", "not given (", "given (", "images (logarithmic)"]),
        ("h.svg", ["10 images, 5 of them below the floor (not shown)", "probability"]),
    ):
        text = (tmp_path / name).read_text()
        assert text.startswith("<?xml")
        assert text.rstrip().endswith("</svg>")
        for word in words:
            assert word in text


def test_curves_of_nothing_are_drawn_too(counts: Counts, tmp_path: Path) -> None:
    """A tag that nobody gave, and a tag that no image has."""
    plots.save_tag(tmp_path / "t.svg", "tag", counts, 2)
    plots.save_histogram(tmp_path / "h.svg", "tag", Histogram(0, [0, 0]))
    assert "no true positive at any threshold" in (tmp_path / "t.svg").read_text()


def test_a_png_is_1280_pixels_wide(counts: Counts, tmp_path: Path) -> None:
    plots.save_tag(tmp_path / "new" / "t.PNG", "tag", counts, 0)
    head = (tmp_path / "new" / "t.PNG").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(head[16:20]) == 1280


def test_another_format_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\.png or \.svg, not curve\.gif"):
        plots.check(tmp_path / "curve.gif")


def test_each_metric_has_a_name() -> None:
    assert METRICS == ("precision", "recall", "f1", "informedness")
    assert np.isnan(macro([]).f1)
