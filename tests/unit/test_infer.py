"""Inference: scores of the device, NaN, memory, and batches."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from db.errors import ImageError, ModelError, SettingsError
from db.scores import Scores
from tests.fixtures.memory import OUT_OF_MEMORY
from workers.images.decode import Decoded
from workers.inference import device, infer
from workers.inference.device import pick_device, pick_dtype
from workers.inference.infer import Inferencer
from workers.inference.network import load_network
from workers.inference.preprocess import Batch
from workers.models.demo import demo_spec
from workers.models.folder import read_folder
from workers.models.spec import ModelSpec
from workers.options import Options

SMALL_DIFFERENCE = 1e-3
"""Tolerance of a probability, which depends on the other images of the batch."""


def noise(number: int, size: int, *, seed: int = 0) -> list[Decoded]:
    random = np.random.default_rng(seed)
    return [Decoded(random.integers(0, 256, (size, size, 3), np.uint8), size, size, "png") for _ in range(number)]


@pytest.fixture
def inferencer(jtp1_folder: Path) -> Inferencer:
    return Inferencer(read_folder(jtp1_folder), Options(batch_size=4, device="cpu"), floor=0)


def test_a_model_that_gives_nan_for_a_blank_image_is_an_error(
    inferencer: Inferencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN as scores would be stored as images without tags; as failures it would empty the queue."""
    monkeypatch.setattr(inferencer, "_network", lambda pixels: torch.full((len(pixels), 3), torch.nan))
    with pytest.raises(ModelError, match="NaN on cpu in float32, even for test images: try --precision fp32"):
        inferencer.scores(noise(5, 98))


def nan_for(image: Decoded, inferencer: Inferencer) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network, but with NaN for this image, at any position of a batch."""
    network, pixels = inferencer._network, inferencer._preprocess.normalise(inferencer._collate([image], 1))[0]

    def broken(batch: torch.Tensor) -> torch.Tensor:
        found = network(batch)
        found[(batch == pixels).flatten(1).all(1), 1] = torch.nan
        return found

    return broken


@pytest.mark.parametrize("number", [1, 6])
def test_an_image_that_gives_nan_takes_no_other_along(
    inferencer: Inferencer, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Also alone, as in a chunk that was split down to this image."""
    images = noise(number, 98)
    expected = inferencer.scores(images).scores
    monkeypatch.setattr(inferencer, "_network", nan_for(images[0], inferencer))
    first, *others = inferencer.scores(images).scores
    assert first is None
    assert_same(others, expected[1:])
    with pytest.raises(ImageError, match="nan: the model gives NaN for it on cpu, in fp32 too"):
        inferencer.probabilities(images)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_what_overflows_a_lower_precision_is_computed_in_fp32(
    inferencer: Inferencer, jtp1_folder: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    half = Inferencer(read_folder(jtp1_folder), Options(batch_size=4, device="cpu", precision=precision), floor=0)
    images = noise(5, 98)
    lower, exact = half.scores(images).scores, inferencer.scores(images).scores
    monkeypatch.setattr(half, "_network", nan_for(images[2], half))
    found = half.scores(images).scores
    assert_same([*found[:2], *found[3:]], [*lower[:2], *lower[3:]])
    assert by_tag(found[2]) == pytest.approx(by_tag(exact[2]), abs=1)  # alone, where `exact` had it in a batch
    torch.testing.assert_close(half.probabilities(images[2:3]), inferencer.probabilities(images[2:3]))


def by_tag(scores: Scores | None) -> dict[int, int]:
    assert scores is not None
    return dict(zip(scores.tag_ids.tolist(), scores.scores.tolist(), strict=True))


def assert_same(found: Sequence[Scores | None], expected: Sequence[Scores | None]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        assert other is not None
        np.testing.assert_array_equal(one.tag_ids, other.tag_ids)
        np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: f"{type(error).__name__}: {error}"[:50])
def test_out_of_memory_halves_the_batch_and_loses_no_image(
    inferencer: Inferencer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """After running out of memory, batches are smaller; the order stays."""
    images, network, sizes = noise(7, 98), inferencer._network, []
    expected = inferencer.probabilities(images)

    def small(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > 2:
            raise error
        return network(pixels)

    monkeypatch.setattr(inferencer, "_network", small)
    kept = inferencer.scores(images).scores
    assert sizes == [4, 2, 2, 2, 1]
    for one, row in zip(kept, expected, strict=True):
        scores = by_tag(one)
        assert [scores[tag] for tag in range(len(row))] == pytest.approx((row.double() * 10_000).tolist(), abs=1.01)


def test_a_device_without_memory_for_one_image_is_said(inferencer: Inferencer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_pixels: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(inferencer, "_network", full)
    with pytest.raises(ModelError, match="too little memory for a single image"):
        inferencer.scores(noise(1, 98))


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: f"{type(error).__name__}: {error}"[:50])
def test_too_little_memory_for_the_network_in_fp32_fails_the_chunk_and_not_the_worker(
    jtp1_folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """An unexpected error ends the worker. The chunk with the image would end one worker after the other."""
    half = Inferencer(read_folder(jtp1_folder), Options(batch_size=4, device="cpu", precision="fp16"), floor=0)
    images = noise(3, 98)
    monkeypatch.setattr(half, "_network", nan_for(images[1], half))

    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(infer, "load_network", full)
    with pytest.raises(ModelError, match="cpu has too little memory to load tiny-jtp1 in float32"):
        half.scores(images)


def test_the_device_is_not_busy_while_the_host_collates(
    inferencer: Inferencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Collating takes an hour here."""
    clock, collate = [0.0], inferencer._collate

    def collate_for_an_hour(images: Sequence[Decoded], size: int) -> Batch:
        clock[0] += 3600
        return collate(images, size)

    monkeypatch.setattr(inferencer, "_collate", collate_for_an_hour)
    monkeypatch.setattr(device.time, "perf_counter", lambda: clock[0])
    assert inferencer.scores(noise(2, 98)).device_seconds == 0


def test_another_error_of_the_device_is_none_of_memory(inferencer: Inferencer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_pixels: torch.Tensor) -> torch.Tensor:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(inferencer, "_network", broken)
    with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
        inferencer.scores(noise(1, 98))


def test_a_full_batch_is_computed_where_one_shape_is_wanted(
    inferencer: Inferencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: the rest of a short batch is filled and computed, but not returned."""
    images, network, sizes = noise(5, 98), inferencer._network, []
    expected = inferencer.probabilities(images)

    def counted(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        return network(pixels)

    monkeypatch.setattr(inferencer, "_network", counted)
    monkeypatch.setattr(inferencer, "_one_shape", True)
    inferencer.warm_up()
    assert len(inferencer.scores(images).scores) == len(images)
    torch.testing.assert_close(inferencer.probabilities(images), expected, atol=1e-6, rtol=0)
    assert sizes == [4] * 5


@pytest.fixture(params=["vit", "demo"])
def one_by_one(request: pytest.FixtureRequest) -> Callable[[int, bool], Inferencer]:
    """Creates an inferencer of this model, by batch size and whether short batches are filled."""
    spec: ModelSpec = demo_spec() if request.param == "demo" else read_folder(request.getfixturevalue("jtp2_folder"))

    def make(batch_size: int, filled: bool) -> Inferencer:
        made = Inferencer(spec, Options(batch_size=batch_size, device="cpu"), floor=0)
        made._one_shape = filled
        return made

    return make


def test_probabilities_do_not_depend_on_what_else_is_in_the_batch(
    one_by_one: Callable[[int, bool], Inferencer],
) -> None:
    """Alone, among others, at another position, and in a batch that is filled."""
    alone = one_by_one(1, False)
    size = alone._preprocess.blank().pixels.shape[0]
    images = noise(6, size)
    expected = alone.probabilities(images)
    for batch_size, filled in ((6, False), (4, False), (4, True), (8, True)):
        together = one_by_one(batch_size, filled)
        for turned in (0, 5):
            found = together.probabilities([*images[turned:], *images[:turned]]).roll(turned, dims=0)
            torch.testing.assert_close(found, expected, atol=SMALL_DIFFERENCE, rtol=0)


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


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("folder", ["jtp1_folder", "jtp2_folder"])
def test_the_head_computes_in_fp32_whatever_the_backbone_does(
    request: pytest.FixtureRequest, folder: str, precision: str
) -> None:
    """With the weights of the file, which are not rounded on the way."""
    spec = read_folder(request.getfixturevalue(folder))
    network = load_network(spec, torch.device("cpu"), pick_dtype(precision, torch.device("cpu")))
    exact = load_network(spec, torch.device("cpu"), torch.float32)
    head, features = network.backbone.get_classifier(), []
    head.register_forward_hook(lambda _head, inputs, outputs: features.append((inputs[0], outputs)))
    network(torch.rand(2, 3, spec.size, spec.size))
    inputs, outputs = features[0]
    assert inputs.dtype == outputs.dtype == torch.float32
    torch.testing.assert_close(outputs, exact.backbone.get_classifier()(inputs), rtol=0, atol=0)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_outputs_that_overflow_are_no_probabilities(jtp1_folder: Path, value: float) -> None:
    """A sigmoid would make 0 or 1 of infinity."""
    network = load_network(read_folder(jtp1_folder), torch.device("cpu"), torch.float32)
    outputs = torch.zeros(2, 3)
    outputs[1, 2] = value
    network.backbone = torch.nn.Module()
    network.backbone.forward = lambda _images: outputs
    assert network(torch.zeros(2, 3, 98, 98)).isnan().tolist() == [[False] * 3, [False, False, True]]


@pytest.mark.parametrize(
    ("precision", "capability", "expected"),
    [
        ("auto", (6, 1), torch.float32),
        ("auto", (7, 0), torch.float16),
        ("auto", (9, 0), torch.float16),
        ("bf16", (9, 0), torch.bfloat16),
    ],
)
def test_a_gpu_computes_in_fp16_where_that_is_fast(
    monkeypatch: pytest.MonkeyPatch, precision: str, capability: tuple[int, int], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert pick_dtype(precision, torch.device("cuda")) == expected
