"""`--compile`: the same probabilities, a cache between starts, and an error if there is no compiler."""

import inspect
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from db.errors import ModelError, SettingsError
from workers.images.decode import Decoded
from workers.inference.infer import Inferencer
from workers.models.folder import read_folder
from workers.options import Options

BATCH_SIZE = 2


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default cache folder of compiled networks, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    torch.compiler.reset()
    return tmp_path / "tagonce" / "inductor"


def inferencer(folder: Path, *, compile: bool) -> Inferencer:  # noqa: A002 - the name of the option
    return Inferencer(read_folder(folder), Options(batch_size=BATCH_SIZE, device="cpu", compile=compile), floor=0)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with g++ on a CPU")
def test_it_gives_the_same_probabilities_with_one_shape(jtp2_folder: Path, cache: Path) -> None:
    """A short batch is filled, so that nothing is compiled again."""
    random = np.random.default_rng(0)
    images = [Decoded(random.integers(0, 256, (98, 98, 3), np.uint8), 98, 98, "png") for _ in range(3)]
    found = inferencer(jtp2_folder, compile=True)
    found.warm_up()
    assert cache.is_dir()
    with torch.compiler.set_stance("fail_on_recompile"):
        probabilities = found.probabilities(images)
    expected = inferencer(jtp2_folder, compile=False).probabilities(images)
    torch.testing.assert_close(probabilities, expected, atol=1e-4, rtol=0)
    del os.environ["TORCHINDUCTOR_CACHE_DIR"]


def failing(error: Exception) -> Callable[..., object]:
    """Replaces `torch.compile`."""

    def fail(_images: torch.Tensor) -> torch.Tensor:
        raise error

    return lambda _network, **_options: fail


def no_compiler() -> Exception:
    from torch._dynamo.exc import BackendCompilerFailed  # to import it takes seconds of every collection

    return BackendCompilerFailed(failing, RuntimeError("no working C++ compiler"), None)


def no_triton() -> Exception:
    from torch._inductor.exc import TritonMissing

    return TritonMissing(inspect.currentframe())


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(no_compiler, "no working C.. compiler"), (no_triton, "Cannot find a working triton installation")],
)
def test_without_a_compiler_there_is_a_sentence(
    jtp1_folder: Path, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception], sentence: str
) -> None:
    """At start, not at the first chunk."""
    monkeypatch.setattr(torch, "compile", failing(error()))
    with pytest.raises(SettingsError, match=rf"cannot be compiled here: {sentence}.*--no-compile"):
        inferencer(jtp1_folder, compile=True).warm_up()


def test_memory_that_runs_out_while_kernels_are_tried_halves_the_batch(
    jtp1_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from torch._inductor.exc import InductorError

    ran_out = InductorError(torch.OutOfMemoryError("CUDA out of memory"), inspect.currentframe())
    monkeypatch.setattr(torch, "compile", failing(ran_out))
    with pytest.raises(ModelError, match="too little memory for a single image"):
        inferencer(jtp1_folder, compile=True).warm_up()
    assert "the batch size is now 1" in caplog.text
