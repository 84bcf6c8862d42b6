"""`make gpu` on a CPU: a tiny network and small sizes, so that the benchmark of GPUs runs when one is there."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.fixtures import forked

BENCH = Path(__file__).parents[2] / "bench"
IMAGES = 8


def in_one_process(parts: Sequence[str], folder: Path, output: Path) -> None:
    """What the process of all parts does. Importing torch for each would take most of the time."""
    forked.enter(folder, dict(os.environ), (Path(os.devnull), output, output))
    sys.path.insert(0, str(BENCH))
    import gpu_parts
    import photos

    photos.with_copies(folder, IMAGES, 2)
    for part in parts:
        gpu_parts.main(part, "cpu", "tiny", str(folder), str(IMAGES))


@pytest.fixture
def figures(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Runs parts, and returns their figures by name."""

    def run(*parts: str) -> dict[str, str]:
        output = tmp_path / "output"
        process = forked.context().Process(target=in_one_process, args=(parts, tmp_path, output))
        process.start()
        process.join(280)
        assert process.exitcode == 0, output.read_text()
        return dict(json.loads(line) for line in output.read_text().splitlines() if line.startswith("["))

    return run


def test_each_part_shows_its_figures(figures: Callable[..., dict[str, str]]) -> None:
    found = figures("prepare", "model", "attention", "attention-deprioritized", "one", "agreement")
    assert found["model"] == "vit_so400m_patch14_siglip_384 at 98, 9,083 tags"
    rates = [
        *("eager fp32, batch 4", "eager fp32, batch 2", "eager bf16, batch 4"),
        *("attention: torch's choice, batch 4", "attention: math, batch 4"),
        f"{IMAGES} JPEGs of a megapixel to PostgreSQL",
    ]
    assert [name for name in rates if "images/s" not in found[name]] == []
    assert "No viable backend" in found["attention: cudnn_attention, batch 4"]
    assert found["product of two matrices of 256², fp32"].endswith(" TFLOP/s")
    assert found["operations an image"] == "0.01 GFLOP"
    assert found["device busy, by each process's own count"].endswith("%")
    for name in ("CPU of the worker an image", "of it decoding", "of it Python: queues, hashes, rows", "of it rest"):
        assert " ms" in found[name]
    for precision in ("fp16", "bf16"):
        assert "% of " in found[f"{precision}: tags at 0.35 in both, of those in either"]
        assert float(found[f"{precision}: largest difference from fp32"]) < 0.1


@pytest.mark.long
def test_the_longer_parts_show_their_figures(figures: Callable[..., dict[str, str]]) -> None:
    found = figures("two", "compiled")
    assert found["device busy, by each process's own count"].count("%") == 2
    assert "images/s" in found["compiled fp32, batch 4"]


def gpu(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCH / "gpu.py", "--device", "cpu", "--folder", folder, "--images", "1", *options]
    whole = os.environ | environment
    return subprocess.run(command, env=whole, capture_output=True, text=True, timeout=120, check=False)


def test_a_part_that_takes_too_long_is_stopped_and_is_no_failure(tmp_path: Path) -> None:
    done = gpu(tmp_path, "--seconds", "0.5", "--parts", "prepare,model", "--out", str(tmp_path / "new" / "gpu.md"))
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "new" / "gpu.md").read_text().splitlines()
    assert table[-2].startswith("| prepare | stopped | at its limit of 0 s |")
    assert table[-1] == "| model | left out | no time is left |"


def test_a_part_that_fails_is_named_at_the_end(tmp_path: Path) -> None:
    """Here because torch does not load, which takes less time than to load it."""
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so: cannot open shared object file')")
    done = gpu(tmp_path, "--parts", "prepare", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "exit code 1; the reason is above" in done.stdout
    assert "libcudart.so" in done.stderr
    assert done.stderr.endswith("Failed: prepare\n")


def test_a_part_that_does_not_exist_is_said(tmp_path: Path) -> None:
    done = gpu(tmp_path, "--parts", "prepare,modell")
    assert done.returncode == 2
    assert "--parts: there is no part modell; there are prepare, model, " in done.stderr
