"""Share of the device's peak rate that a model uses, and the agreement of lower precisions with fp32."""

import time
from collections.abc import Iterable

import torch
from rich.console import Console
from rich.table import Table
from runs import Setup
from straight import CORES, Files
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from workers.images.decode import Decoder
from workers.inference.device import device_name, pick_device, pick_dtype
from workers.inference.network import load_network
from workers.models.registry import find_model
from workers.models.spec import ModelSpec
from workers.options import Options

THRESHOLDS = (0.2, 0.35, 0.5)
LOWER = {"bf16": torch.bfloat16, "fp16": torch.float16}
SIDES = {"cuda": 8_192, "mps": 4_096, "cpu": 2_048}
"""Side of the square matrices of the peak rate."""
SECONDS = 2.0
DECODED = 50
"""Images that are decoded to measure the cost of one."""
COMPARED = {"cuda": 2_000, "mps": 200, "cpu": 8}
"""Images whose probabilities are computed in three precisions."""


def show(setup: Setup, alone: float, ours: float) -> None:
    """Print the share of the device that is used, and how probabilities in lower precisions agree with fp32.

    Args:
        alone: images/s of the model over tensors in memory.
        ours: images/s of tagonce on SQLite.
    """
    spec, device = find_model(setup.model), pick_device(setup.device)
    dtype = pick_dtype(setup.precision, device)
    operations, rate = operations_of(spec, device), matrix_rate(device, dtype)
    decode = decode_seconds(spec, setup)
    title = f"{spec.name} on {device_name(device)}, {dtype}, batches of {setup.batch_size}"
    table = Table(show_header=False, title=title, title_justify="left")
    table.add_row("operations an image, counted", f"{operations / 1e9:,.2f} GFLOP")
    table.add_row("the model alone", f"{alone:,.2f} images/s, {alone * operations / 1e12:,.3f} TFLOP/s")
    table.add_row(f"product of two matrices of {SIDES[device.type]:,}²", f"{rate / 1e12:,.3f} TFLOP/s")
    table.add_row("the model's share of that", f"{alone * operations / rate:.0%}")
    table.add_row("tagonce end to end, by the model alone", f"{ours / alone:.0%}")
    table.add_row("decoding an image, on one core", f"{decode * 1e3:.1f} ms")
    table.add_row(f"decoding's share of {CORES} cores at tagonce's rate", f"{ours * decode / CORES:.0%}")
    Console(width=120).print(table)
    show_agreement(spec, setup, device)


@torch.inference_mode()
def operations_of(spec: ModelSpec, device: torch.device) -> int:
    """Floating-point operations of one image; a multiplication and an addition count as two."""
    network = load_network(spec, device, torch.float32)
    # As matrix products: not every fused kernel of attention has a formula.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(torch.zeros(1, 3, spec.size, spec.size, device=device))
    return int(counter.get_total_flops())


@torch.inference_mode()
def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product; the best of `SECONDS`."""
    side = SIDES[device.type]
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        begun = time.perf_counter()
        one @ other
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
        best = min(best, time.perf_counter() - begun)
    return 2 * side**3 / best


def decode_seconds(spec: ModelSpec, setup: Setup) -> float:
    """CPU seconds an image, from the bytes of the file to the pixels for the device."""
    decoder = Decoder(spec, max_pixels=Options(batch_size=1).max_pixels)
    files = [(setup.photos / name).read_bytes() for name in list(setup.names)[:DECODED]]
    begun = time.thread_time()
    for data in files:
        decoder.decode(data)
    return (time.thread_time() - begun) / len(files)


def show_agreement(spec: ModelSpec, setup: Setup, device: torch.device) -> None:
    """Print how often bf16 and fp16 keep the same tags as fp32, of the tags that either keeps."""
    paths = [setup.photos / name for name in list(setup.names)[: COMPARED[device.type]]]
    loader = torch.utils.data.DataLoader(Files(paths, spec), batch_size=setup.batch_size, num_workers=CORES)
    batches = [pixels for _names, pixels in loader]
    torch.backends.cudnn.allow_tf32 = False  # compare with full fp32, not TF32
    exact, *lower = (probabilities(spec, batches, device, dtype) for dtype in (torch.float32, *LOWER.values()))
    table = Table("", *LOWER, title=f"{spec.name}: {len(paths):,} images, agreement with fp32", title_justify="left")
    for threshold in THRESHOLDS:
        shares = (agreement(exact, one, threshold) for one in lower)
        table.add_row(f"tags at {threshold} in both, of those in either", *shares)
    table.add_row("largest difference", *(f"{(one - exact).abs().max():.4f}" for one in lower))
    kept = exact >= min(THRESHOLDS)
    means = (f"{(one - exact)[kept].abs().mean():.5f}" for one in lower)
    table.add_row(f"mean difference, of tags at {min(THRESHOLDS)}", *means)
    Console(width=120).print(table)


def agreement(exact: torch.Tensor, other: torch.Tensor, threshold: float) -> str:
    """Tags that both keep, of those that either keeps."""
    ours, theirs = exact >= threshold, other >= threshold
    both, either = int((ours & theirs).sum()), int((ours | theirs).sum())
    return f"{both / either:.2%} of {either:,}" if either else "none"


@torch.inference_mode()
def probabilities(
    spec: ModelSpec, batches: Iterable[torch.Tensor], device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """float32 [N, tags] on the CPU, of batches preprocessed by the reference."""
    network = load_network(spec, device, dtype)
    return torch.cat([network(pixels.to(device)).cpu() for pixels in batches])
