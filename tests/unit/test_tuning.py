"""`--batch-size auto`: measured once, cached, and optional."""

import gc
import json
import logging
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from tests.fixtures.memory import OUT_OF_MEMORY
from tests.fixtures.onnx_models import Tiny, write_onnx
from workers.images.decode import Decoded
from workers.inference import infer, tuning
from workers.inference.infer import Inferencer, Inferred, Launched
from workers.inference.network import Network, load_network
from workers.models.folder import read_folder
from workers.models.spec import ModelSpec
from workers.options import Options

OPTIONS = Options(batch_size=3, device="cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the cached sizes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tagonce" / "batch-sizes.json"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """Options of every measurement."""
    begun: list[Options] = []

    class Counted(Inferencer):
        def __init__(self, spec: object, options: Options, *, floor: int) -> None:
            begun.append(options)
            super().__init__(spec, options, floor=floor)  # type: ignore[arg-type]

    monkeypatch.setattr(tuning, "Inferencer", Counted)
    return begun


def curve(rates: dict[int, float | None]) -> Callable[[int], float | None]:
    return lambda size: rates[size]


@pytest.mark.parametrize(
    ("rates", "smallest", "best"),
    [
        ({1: 10, 2: 19, 4: 30, 8: 31}, 1, 4),
        ({1: 10, 2: 10}, 1, 1),
        ({8: 100, 16: 200, 32: 400, 64: 800}, 8, 64),
        ({8: 100, 16: 200, 32: None}, 8, 16),
        ({8: None, 4: None, 2: 5}, 8, 2),
        ({8: None, 4: None, 2: None, 1: 5}, 8, 1),
    ],
)
def test_it_doubles_until_that_does_not_pay_or_memory_runs_out(
    rates: dict[int, float | None], smallest: int, best: int
) -> None:
    assert tuning.search(curve(rates), smallest, 64) == best


def test_on_a_gpu_only_memory_ends_the_search() -> None:
    fits = 4096
    assert tuning.search(lambda size: size if size <= fits else None, tuning.SMALLEST["cuda"], None) == fits
    assert {tuning.LARGEST.get(kind) for kind in ("cuda", "mps")} == {None}


def test_it_is_measured_once_for_each_of_what_it_depends_on(
    jtp1_folder: Path, cache: Path, measured: list[Options], caplog: pytest.LogCaptureFixture
) -> None:
    spec = read_folder(jtp1_folder)
    with caplog.at_level(logging.INFO):
        size = tuning.best_batch_size(spec, OPTIONS)
    assert size in (1, 2, 4, 8, 16, 32, 64)
    assert f"the best batch size for {spec.name} is {size}" in caplog.text
    assert list(json.loads(cache.read_text()).values()) == [size]
    assert tuning.best_batch_size(spec, OPTIONS) == size
    assert len(measured) == 1
    tuning.best_batch_size(spec, Options(batch_size=3, device="cpu", precision="bf16"))
    assert len(measured) == 2
    assert len(json.loads(cache.read_text())) == 2


def test_two_onnx_files_of_one_shape_are_measured_both(tmp_path: Path, cache: Path, measured: list[Options]) -> None:
    """Their networks are not known by a name."""
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        write_onnx(folder, Tiny(2, logits="logits", seed=seed))
        (folder / "class.json").write_text('["a", "b"]')
        tuning.best_batch_size(read_folder(folder), OPTIONS)
        tuning.best_batch_size(read_folder(folder), OPTIONS)
    assert len(measured) == len(json.loads(cache.read_text())) == 2


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: f"{type(error).__name__}: {error}"[:50])
def test_what_does_not_fit_into_memory_is_not_chosen(
    jtp1_folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A size that runs out of memory is computed at most once, in halves, before the search ends."""
    forward, sizes = Network.forward, []

    def small(self: Network, pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > 2:
            raise error
        return forward(self, pixels)

    monkeypatch.setattr(Network, "forward", small)
    monkeypatch.setattr(tuning, "GAIN", 0.0)
    assert tuning.best_batch_size(read_folder(jtp1_folder), OPTIONS) == 2
    assert min(sizes[sizes.index(4) :]) == 2


def test_two_forwards_are_in_flight_while_it_measures(jtp1_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a worker on a GPU: alone, a forward would also wait for its launch."""
    begun: list[Launched] = []
    most = 0

    def launch(self: Inferencer, images: Sequence[Decoded]) -> Launched:
        nonlocal most
        begun.append(launched := real_launch(self, images))
        most = max(most, len(begun))
        return launched

    def finish(self: Inferencer, launched: Launched) -> Inferred:
        assert launched is begun.pop(0)
        return real_finish(self, launched)

    real_launch, real_finish = Inferencer.launch, Inferencer.finish
    monkeypatch.setattr(Inferencer, "launch", launch)
    monkeypatch.setattr(Inferencer, "finish", finish)
    monkeypatch.setattr(tuning, "LARGEST", {"cpu": 1})
    tuning.best_batch_size(read_folder(jtp1_folder), OPTIONS)
    assert (most, begun) == (2, [])


def test_the_network_is_not_kept(jtp1_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker loads it again for the measured size, into the same memory."""
    networks: list[weakref.ref[Network]] = []

    def remembered(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> Network:
        networks.append(weakref.ref(network := load_network(spec, device, dtype)))
        return network

    monkeypatch.setattr(infer, "load_network", remembered)
    monkeypatch.setattr(tuning, "LARGEST", {"cpu": 1})
    tuning.best_batch_size(read_folder(jtp1_folder), OPTIONS)
    gc.collect()
    assert [network() for network in networks] == [None]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": "b"}'])
def test_a_broken_file_is_ignored_and_written_anew(
    jtp1_folder: Path, cache: Path, measured: list[Options], content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "LARGEST", {"cpu": 1})
    cache.parent.mkdir(parents=True)
    cache.write_text(content)
    assert tuning.best_batch_size(read_folder(jtp1_folder), OPTIONS) == 1
    assert len(measured) == 1
    assert list(json.loads(cache.read_text()).values()) == [1]


def test_where_nothing_can_be_written_it_works_all_the_same(
    jtp1_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tuning, "LARGEST", {"cpu": 1})
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert tuning.best_batch_size(read_folder(jtp1_folder), OPTIONS) == 1
    assert "the batch size cannot be stored" in caplog.text
