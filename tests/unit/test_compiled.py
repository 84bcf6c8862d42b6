"""`--compile`: the same probabilities, kept between starts, and a sentence where there is no compiler."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from db.errors import SettingsError
from workers.decode import Decoded
from workers.infer import Inferencer
from workers.models.folder import read_folder
from workers.options import Options

BATCH_SIZE = 2


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where compiled networks go when nobody says otherwise. Nothing is left from another test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    torch.compiler.reset()
    return tmp_path / "tagonce" / "inductor"


def inferencer(folder: Path, *, compile: bool) -> Inferencer:  # noqa: A002 - the name of the option
    return Inferencer(read_folder(folder), Options(batch_size=BATCH_SIZE, device="cpu", compile=compile), floor=0)


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


def test_without_a_compiler_there_is_a_sentence(jtp1_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At start, not when the first chunk has come."""
    from torch._dynamo.exc import BackendCompilerFailed

    def fail(_images: torch.Tensor) -> torch.Tensor:
        raise BackendCompilerFailed(fail, RuntimeError("no working C++ compiler"), None)

    monkeypatch.setattr(torch, "compile", lambda _network, **_options: fail)
    with pytest.raises(SettingsError, match="cannot be compiled here: no working C.. compiler.*--no-compile"):
        inferencer(jtp1_folder, compile=True).warm_up()
