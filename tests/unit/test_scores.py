"""Scores: rounding down, cutting at the floor, and what counts as a threshold."""

import math
from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from db.errors import ThresholdError
from db.scores import SCALE, Scores, to_probability, to_score
from workers.inference.infer import cut, quantised

THRESHOLDS = np.arange(SCALE + 1) / SCALE
"""Every threshold there is, as the float64 that Python reads its decimal as."""

probabilities_of_a_model = st.floats(0, 1, width=32)


def score_of(probabilities: np.ndarray) -> np.ndarray:
    """Scores of float32 probabilities, by the formula."""
    assert probabilities.dtype == np.float32
    return np.floor(probabilities.astype(np.float64) * SCALE).astype(np.int64)


def around_every_threshold() -> np.ndarray:
    """The float32 nearest to each threshold and its five neighbours on both sides, inside 0..1."""
    steps = [THRESHOLDS.astype(np.float32)]
    for towards in (-1, 2):
        near = steps[0]
        for _ in range(5):
            near = np.nextafter(near, np.float32(towards))
            steps.append(near)
    return np.unique(np.concatenate(steps).clip(0, 1))


# ── rounding down ──


def test_a_score_reaches_k_exactly_when_the_probability_reaches_k_ten_thousandths() -> None:
    """At every one of the 10,001 thresholds, for the float32 values next to it: 110,000 probabilities."""
    probabilities = around_every_threshold()
    reached = np.searchsorted(THRESHOLDS, probabilities.astype(np.float64), side="right") - 1
    np.testing.assert_array_equal(score_of(probabilities), reached)


@given(probabilities_of_a_model, st.integers(0, SCALE))
def test_any_probability_against_any_threshold(probability: float, k: int) -> None:
    """Random ones, denormals, 0 and 1. Compared as Python compares the float32 with the decimal that a person wrote."""
    score = int(score_of(np.array([probability], np.float32))[0])
    assert (score >= k) == (probability >= float(f"{k / SCALE:.4f}"))


@pytest.mark.parametrize(
    ("probability", "score"),
    [(0.0, 0), (5e-324, 0), (1.4e-45, 0), (9.9e-5, 0), (1.0, 10_000), (math.nextafter(1, 0), 9_999)],
)
def test_the_ends(probability: float, score: int) -> None:
    assert math.floor(probability * SCALE) == score


# ── what is kept ──


def expected_scores(row: np.ndarray, floor: int) -> list[tuple[int, int]]:
    """(score, tag id) of what reaches the floor, ascending by score, ties by tag id."""
    return sorted((int(score), tag_id) for tag_id, score in enumerate(score_of(row)) if score >= floor)


def pairs(scores: Scores) -> list[tuple[int, int]]:
    assert (scores.tag_ids.dtype, scores.scores.dtype) == (np.int32, np.int16)
    return list(zip(scores.scores.tolist(), scores.tag_ids.tolist(), strict=True))


def keep(probabilities: torch.Tensor, floor: int) -> list[Scores]:
    """What a worker does between the network and the database."""
    return cut(quantised(probabilities).numpy(), floor)


@given(
    st.integers(1, 4).flatmap(lambda tags: st.lists(st.lists(probabilities_of_a_model, min_size=tags, max_size=tags))),
    st.integers(0, SCALE),
)
def test_what_a_worker_keeps_is_the_formula_sorted(rows: list[list[float]], floor: int) -> None:
    """Few distinct values make ties; no image at all is fine too."""
    array = np.array(rows, np.float32).reshape(len(rows), -1 if rows else 3)
    kept = keep(torch.from_numpy(array), floor)
    assert [pairs(one) for one in kept] == [expected_scores(row, floor) for row in array]


def test_a_worker_rounds_as_the_formula_around_every_threshold() -> None:
    probabilities = around_every_threshold()[: 3 * 32_767].reshape(-1, 7)
    for row, scores in zip(probabilities, keep(torch.from_numpy(probabilities), 0), strict=True):
        assert pairs(scores) == expected_scores(row, 0)


def test_floor_0_keeps_everything_and_ties_go_by_tag_id() -> None:
    (kept,) = keep(torch.tensor([[0.5, 0.0, 1.0, 0.5, 0.50004]]), 0)
    assert kept.tag_ids.tolist() == [1, 0, 3, 4, 2]
    assert kept.scores.tolist() == [0, 5000, 5000, 5000, 10_000]
    assert len(kept) == 5


def test_a_floor_above_all_keeps_nothing() -> None:
    (kept,) = keep(torch.tensor([[0.5, 0.1]]), 9_000)
    assert len(kept) == 0


def test_the_last_tag_id_of_the_widest_model_is_kept_as_it_is() -> None:
    probabilities = torch.zeros(1, 131_072)
    probabilities[0, -1] = 1.0
    (kept,) = keep(probabilities, 1)
    assert pairs(kept) == [(10_000, 131_071)]


# ── thresholds as people write them ──


@pytest.mark.parametrize(
    ("threshold", "score"),
    [
        (0.35, 3500),
        ("0.0001", 1),
        (1, 10_000),
        (0, 0),
        ("1.0000", 10_000),
        (Decimal("0.29"), 2900),
        (1e-4, 1),
        (-0.0, 0),
    ],
)
def test_a_threshold_becomes_a_score(threshold: float | str | Decimal, score: int) -> None:
    assert to_score(threshold) == score


def test_every_score_survives_the_way_through_a_probability() -> None:
    assert [to_score(to_probability(score)) for score in range(SCALE + 1)] == list(range(SCALE + 1))


@pytest.mark.parametrize("threshold", [1.5, -1, math.nan, math.inf, -math.inf, "x", "", "0,35", "sNaN", 1.00001, -1e-9])
def test_what_is_not_between_0_and_1_is_refused(threshold: float | str) -> None:
    with pytest.raises(ThresholdError, match="^A threshold is a number between 0 and 1, not "):
        to_score(threshold)


@pytest.mark.parametrize("threshold", [0.12345, "0.00001", 1e-9])
def test_a_fifth_decimal_is_refused(threshold: float | str) -> None:
    with pytest.raises(ThresholdError, match=r"at most four decimals, since .* ten-thousandths; .* has more\.$"):
        to_score(threshold)


def test_an_error_names_what_it_is_about() -> None:
    with pytest.raises(ThresholdError, match="^The floor is a number"):
        to_score(2, what="The floor")
