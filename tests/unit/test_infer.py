"""What leaves the device: scores, and nothing that only looks like them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from db.errors import ModelError, SettingsError
from workers.decode import Decoded
from workers.infer import Inferencer, pick_device
from workers.models.folder import read_folder
from workers.options import Options


def noise(number: int, size: int) -> list[Decoded]:
    random = np.random.default_rng(0)
    return [Decoded(random.integers(0, 256, (size, size, 3), np.uint8), size, size, "png") for _ in range(number)]


@pytest.fixture
def inferencer(jtp1_folder: Path) -> Inferencer:
    return Inferencer(read_folder(jtp1_folder), Options(batch_size=4, device="cpu"), floor=0)


def test_nan_is_an_error_and_no_image_without_tags(inferencer: Inferencer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inferencer, "_network", lambda pixels: torch.full((len(pixels), 3), torch.nan))
    with pytest.raises(ModelError, match="NaN on cpu in float32: try --precision fp32"):
        inferencer.scores(noise(1, 98))


def test_out_of_memory_halves_the_batch_and_loses_no_image(
    inferencer: Inferencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the device cannot hold is done in smaller pieces, in the same order, from then on."""
    images, network, sizes = noise(7, 98), inferencer._network, []
    expected = inferencer.probabilities(images)

    def small(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return network(pixels)

    monkeypatch.setattr(inferencer, "_network", small)
    kept = inferencer.scores(images)
    assert sizes == [4, 2, 2, 2, 1]
    for one, row in zip(kept, expected, strict=True):
        by_tag = dict(zip(one.tag_ids.tolist(), one.scores.tolist(), strict=True))
        assert [by_tag[tag] for tag in range(len(row))] == pytest.approx((row.double() * 10_000).tolist(), abs=1.01)


def test_a_device_without_memory_for_one_image_is_said(inferencer: Inferencer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_pixels: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(inferencer, "_network", full)
    with pytest.raises(ModelError, match="too little memory for a single image"):
        inferencer.scores(noise(1, 98))


def test_bf16_gives_probabilities_near_those_of_fp32(inferencer: Inferencer, jtp1_folder: Path) -> None:
    half = Inferencer(read_folder(jtp1_folder), Options(batch_size=4, device="cpu", precision="bf16"), floor=0)
    images = noise(3, 98)
    assert half.where == ("cpu", "bfloat16")
    # Eight bits of mantissa in each of a dozen layers; how they add up depends on the processor.
    assert torch.allclose(half.probabilities(images), inferencer.probabilities(images), atol=0.06)


@pytest.mark.parametrize("name", ["cuda:7", "tpu"])
def test_a_device_that_is_not_there_is_said(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}.*TAGONCE_DEVICE"):
        pick_device(name)
