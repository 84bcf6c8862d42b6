"""`--batch-size auto`: measured once, cached, and optional."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from workers.inference import tuning
from workers.inference.infer import Inferencer
from workers.inference.network import Network
from workers.models.folder import read_folder
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


def test_what_does_not_fit_into_memory_is_not_chosen(jtp1_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Network.forward

    def small(self: Network, pixels: torch.Tensor) -> torch.Tensor:
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, pixels)

    monkeypatch.setattr(Network, "forward", small)
    monkeypatch.setattr(tuning, "GAIN", 0.0)
    assert tuning.best_batch_size(read_folder(jtp1_folder), OPTIONS) == 2


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
