"""Compiled networks: the same probabilities, a cache between starts, and no image that waits for the compiler."""

import inspect
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from db.errors import ModelError, SettingsError
from tests.fixtures.command import wait_until
from workers.images.decode import Decoded
from workers.inference import infer
from workers.inference.compile_ahead import CompileAhead
from workers.inference.infer import Inferencer
from workers.models.folder import read_folder
from workers.options import Options

BATCH_SIZE = 2


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of compiled networks, empty."""
    folder = tmp_path / "inductor"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    torch.compiler.reset()
    return folder


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with g++ on a CPU")


def inferencer(folder: Path, *, compile: bool | None) -> Inferencer:  # noqa: A002 - the name of the option
    return Inferencer(read_folder(folder), Options(batch_size=BATCH_SIZE, device="cpu", compile=compile), floor=0)


def noise(number: int) -> list[Decoded]:
    random = np.random.default_rng(0)
    return [Decoded(random.integers(0, 256, (98, 98, 3), np.uint8), 98, 98, "png") for _ in range(number)]


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.long
@needs_compiler
def test_it_gives_the_same_probabilities_with_one_shape(jtp2_folder: Path, cache: Path) -> None:
    """A short batch is filled, so that nothing is compiled again."""
    images = noise(3)
    found = inferencer(jtp2_folder, compile=True)
    found.warm_up()
    assert cache.is_dir()
    with torch.compiler.set_stance("fail_on_recompile"):
        probabilities = found.probabilities(images)
    same(probabilities, inferencer(jtp2_folder, compile=False).probabilities(images))


@pytest.mark.long
@needs_compiler
def test_images_are_inferred_before_while_and_after_the_network_is_compiled(
    jtp2_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a GPU. This process finds the compiled network in the cache, and compiles nothing itself."""
    from torch._dynamo.utils import counters

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(infer, "COMPILED_AHEAD", {"cpu"})
    images, found = noise(3), inferencer(jtp2_folder, compile=None)
    expected = inferencer(jtp2_folder, compile=False).probabilities(images)
    counters.clear()
    found.warm_up()
    meanwhile = 0
    while not found._compiled:
        same(scores(found, images), expected)
        meanwhile += 1
        time.sleep(0.5)  # the compiler needs the cores
        assert found._compiles_ahead, caplog.text
    assert meanwhile > 1
    assert counters["inductor"]["fxgraph_cache_hit"] == 1
    assert counters["inductor"]["fxgraph_cache_miss"] == 0
    assert f"compiled for batches of {BATCH_SIZE}" in caplog.text
    with torch.compiler.set_stance("fail_on_recompile"):
        same(scores(found, images), expected)

        found._halve(BATCH_SIZE)  # as when memory runs out: the compiled network has another shape
        same(scores(found, images), expected)
    assert found._ahead
    assert found._ahead.size == BATCH_SIZE // 2
    found._ahead.stop()


def scores(found: Inferencer, images: list[Decoded]) -> torch.Tensor:
    """As probabilities of all tags, by the way that a worker takes."""
    rows = torch.zeros(len(images), len(found._spec.tags))
    for row, one in zip(rows, found.scores(images).scores, strict=True):
        assert one
        row[one.tag_ids.tolist()] = torch.from_numpy(one.scores / np.float32(10_000))
    return rows


@pytest.mark.long
@needs_compiler
def test_without_a_compiler_the_log_says_what_to_install(
    jtp1_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(infer, "COMPILED_AHEAD", {"cpu"})
    monkeypatch.setenv("CXX", "/nowhere/g++")
    found = inferencer(jtp1_folder, compile=None)
    found.warm_up()
    while found._compiles_ahead:
        found.scores(noise(1))
        time.sleep(0.5)
    (message,) = caplog.messages
    assert "stays uncompiled, which is slower: The network cannot be compiled here: " in message
    assert "Install a C++ compiler (Debian and Ubuntu: apt install g++ python3-dev)" in message


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Replaces the process that compiles."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_where_nothing_can_be_compiled_the_uncompiled_network_serves(
    jtp1_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(infer, "COMPILED_AHEAD", {"cpu"})
    stand_in(monkeypatch, tmp_path, "echo AUTOTUNE; echo 'cannot be compiled here: apt install g++' >&2; exit 1")
    images, found = noise(3), inferencer(jtp1_folder, compile=None)
    expected = inferencer(jtp1_folder, compile=False).probabilities(images)
    found.warm_up()
    for _ in range(2):  # it is not tried again
        same(scores(found, images), expected)
        wait_until(lambda: found._ahead is None or not found._ahead.is_running, every=0.01)
    same(scores(found, images), expected)
    assert caplog.messages == [
        "the network stays uncompiled, which is slower: cannot be compiled here: apt install g++ (code 1)"
    ]


def test_where_no_process_can_be_started_the_uncompiled_network_serves(
    jtp1_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(infer, "COMPILED_AHEAD", {"cpu"})
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    found = inferencer(jtp1_folder, compile=None)
    found.warm_up()
    assert len(found.scores(noise(3)).scores) == 3
    assert len(caplog.messages) == 1
    assert "the network stays uncompiled, which is slower: [Errno 2] No such file" in caplog.text


def test_a_compiled_network_that_gives_other_scores_is_not_used(
    jtp1_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(infer, "COMPILED_AHEAD", {"cpu"})
    monkeypatch.setattr(infer, "compiled", lambda network, _images: lambda images: network(images) + 0.01)
    stand_in(monkeypatch, tmp_path, "exit 0")
    images, found = noise(3), inferencer(jtp1_folder, compile=None)
    expected = inferencer(jtp1_folder, compile=False).probabilities(images)
    found.warm_up()
    found.scores(images)
    wait_until(lambda: found._ahead is None or not found._ahead.is_running, every=0.01)
    same(scores(found, images), expected)
    assert "probabilities of test images differ by 0.0100" in caplog.text


def test_a_smaller_batch_is_compiled_anew(jtp1_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that compiles for the size before the halving ends."""
    monkeypatch.setattr(infer, "COMPILED_AHEAD", {"cpu"})
    stand_in(monkeypatch, tmp_path, "exec sleep 60")
    found = inferencer(jtp1_folder, compile=None)
    found.warm_up()
    found.scores(noise(1))
    first = found._ahead
    assert first
    found._halve(BATCH_SIZE)
    found.scores(noise(1))
    assert not first.is_running
    assert found._ahead
    assert (found._ahead.size, found._ahead.is_running) == (1, True)
    found._ahead.stop()


def test_a_cpu_compiles_only_what_is_asked_for(
    jtp1_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, tmp_path, "exit 1")
    found = inferencer(jtp1_folder, compile=None)
    found.warm_up()
    found.scores(noise(1))
    assert found._ahead is None
    assert not found._one_shape


def test_the_process_that_compiles_ends_with_the_worker(jtp1_folder: Path) -> None:
    """However that ends: the system closes its end of the pipe."""
    ahead = CompileAhead(read_folder(jtp1_folder), Options(batch_size=2, device="cpu"), 2)
    ahead._input.close()
    assert ahead._process.wait(20) == os.EX_UNAVAILABLE
    ahead.stop()


WORKER_WITHOUT_BROKER = """
import os
from contextlib import suppress
from db.errors import SettingsError
from tagonce import settings
from tagonce.commands import worker
with suppress(SettingsError):
    worker.run(settings.load())
import timm
print(os.environ["TORCHINDUCTOR_CACHE_DIR"])
"""


def test_a_worker_keeps_compiled_code_in_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default torch keeps it below /tmp, where it is lost when a container ends."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    done = subprocess.run(
        [sys.executable, "-c", WORKER_WITHOUT_BROKER], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(tmp_path / "cache" / "tagonce" / "inductor")]


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


def no_python_h() -> Exception:
    return subprocess.CalledProcessError(1, ["/usr/bin/gcc", "driver.c"])


def no_c_compiler() -> Exception:
    return RuntimeError("Failed to find C compiler. Please specify via CC environment variable")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (no_compiler, "no working C.. compiler"),
        (no_triton, "Cannot find a working triton installation"),
        (no_python_h, "Command .*gcc.* returned non-zero"),
        (no_c_compiler, "Failed to find C compiler"),
    ],
)
def test_without_a_compiler_there_is_a_sentence(
    jtp1_folder: Path, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception], sentence: str
) -> None:
    """At start, not at the first chunk."""
    monkeypatch.setattr(torch, "compile", failing(error()))
    with pytest.raises(
        SettingsError, match=rf"cannot be compiled here: {sentence}.*apt install g.. python3-dev.*--no-compile"
    ):
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
