"""The parts of `gpu.py`. Each is a process that prints a JSON list of a name and a value for each figure.

    python bench/gpu_parts.py PART DEVICE MODEL FOLDER IMAGES

`gpu.py` runs them with limits.
"""

import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import image_path
import ours
import photos
import random_model
import services
import torch
from runs import Setup
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from db.errors import SettingsError
from workers.cpus import cores
from workers.images.decode import Decoded, Decoder
from workers.inference.compiled import compiled
from workers.inference.infer import Inferencer
from workers.inference.network import load_network
from workers.models.registry import find_model
from workers.models.spec import ModelSpec
from workers.options import Options

ROOT = Path(__file__).parents[1]
Forward = Callable[[torch.Tensor], torch.Tensor]
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BACKENDS = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.MATH,
)
THRESHOLDS = (0.2, 0.35, 0.5)
DECODED = 50
"""Images that are decoded to measure the cost of one."""


@dataclass(frozen=True)
class Sizes:
    """Amounts of work that suit a kind of device."""

    precision: str
    side: int
    """Of square matrices."""
    batches: tuple[int, ...]
    """The first one is that of all other measurements."""
    repeats: int
    compared: int
    """Images whose probabilities are compared between precisions."""
    small: int
    """Tiny images that measure what Python costs."""


SIZES = {"cpu": Sizes("fp32", 256, (4, 2), 2, 4, 64)}
OF_GPU = Sizes("fp16", 8_192, (64, 128, 32, 256, 512), 12, 256, 4_000)


class Bench:
    """A model on a device, and the measurements of it.

    Args:
        model: `so400m`, `tiny`, or as `tagonce --model` takes it.
        folder: photographs and weights.
        images: number of photographs.
    """

    def __init__(self, device: str, model: str, folder: Path, images: int) -> None:
        self.device = torch.device(device)
        self.sizes = SIZES.get(self.device.type, OF_GPU)
        self._model, self._folder, self._images = model, folder, images
        self._on_cuda = self.device.type == "cuda"
        if self.device.index is not None:
            torch.cuda.set_device(self.device)
        torch.backends.cudnn.benchmark = True  # as `Inferencer` does

    # ── the parts ──

    def prepare(self) -> None:
        """Write the model, and say what this machine is."""
        if self._on_cuda:
            show("GPU", torch.cuda.get_device_name(self.device))
            if shutil.which("nvidia-smi"):
                asked = nvidia_smi(self.device, "driver_version,memory.total,power.limit")
                show("driver, MiB of memory, W of power", subprocess.check_output(asked, text=True).strip())
            show("CUDA, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}")
        libraries = ("torchvision", "timm", "numpy", "pillow")
        show("Python, torch", f"{sys.version.partition(' ')[0]}, {torch.__version__}")
        show(", ".join(libraries), ", ".join(version(name) for name in libraries))
        show("cores", str(cores()))
        show("model", f"{self.spec.architecture} at {self.spec.size}, {len(self.spec.tags):,} tags")

    @torch.inference_mode()
    def model(self) -> None:
        """Rates of matrix products and of the network alone."""
        side = self.sizes.side
        for precision in ("fp16", "bf16") if self._on_cuda else ("fp32",):
            one, other = (torch.randn(side, side, device=self.device, dtype=PRECISIONS[precision]) for _ in range(2))
            rate = 2 * side**3 / self._seconds(lambda: one @ other)  # noqa: B023 - it is called here
            show(f"product of two matrices of {side:,}², {precision}", f"{rate / 1e12:,.3f} TFLOP/s")
        show("operations an image", f"{self._operations() / 1e9:,.2f} GFLOP")
        network = self._network(self.sizes.precision)
        for batch in self.sizes.batches:
            self._rate(f"eager {self.sizes.precision}", network, batch)
        self._rate("eager bf16", self._network("bf16"), self.sizes.batches[0])

    def tests(self) -> None:
        """The tests marked `gpu`, on this device."""
        options = ["-v", "-W", "default", "-m", "gpu", "tests/unit/test_on_device.py"]
        environment = os.environ | {"TAGONCE_TEST_DEVICE": str(self.device)}
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
        line = ""
        for line in process.stdout or ():
            print(line, end="", flush=True)
        show("pytest -m gpu", line.strip(" =\n"))
        sys.exit(process.wait())

    def one(self) -> None:
        """One worker process from files to rows, and where its CPU time goes."""
        shared = self._end_to_end(1)
        decode = self._decode_seconds()
        python = self._python_seconds()
        rest = shared.cpu_seconds - decode - python
        show("CPU of the worker an image", f"{shared.cpu_seconds * 1e3:.2f} ms")
        for name, seconds in (("decoding", decode), ("Python: queues, hashes, rows", python), ("rest", rest)):
            show(f"of it {name}", f"{seconds * 1e3:.2f} ms, {seconds / shared.cpu_seconds:.0%}")
        most = cores() / shared.cpu_seconds
        show(f"images/s that {cores()} cores suffice for", f"{most:,.0f}")

    def two(self) -> None:
        """Two worker processes on the device."""
        self._end_to_end(2)

    @torch.inference_mode()
    def attention(self) -> None:
        """The network with each kernel of attention."""
        network, batch = self._network(self.sizes.precision), self.sizes.batches[0]
        self._rate("attention: torch's choice", network, batch)
        for backend in BACKENDS:
            with sdpa_kernel(backend):
                self._rate(f"attention: {backend.name.lower()}", network, batch)

    @torch.inference_mode()
    def attention_deprioritized(self) -> None:
        """With cuDNN as torch's last choice."""
        self._rate("attention: torch's choice", self._network(self.sizes.precision), self.sizes.batches[0])

    def agreement(self) -> None:
        """How often lower precisions keep the same tags as fp32, of the tags that either keeps."""
        images = self._decoded(self.sizes.compared)
        exact = self._probabilities(images, "fp32")
        for precision in ("fp16", "bf16"):
            found = self._probabilities(images, precision)
            for threshold in THRESHOLDS:
                ours_, theirs = exact >= threshold, found >= threshold
                both, either = int((ours_ & theirs).sum()), int((ours_ | theirs).sum())
                share = f"{both / either:.2%} of {either:,}" if either else "no tags"
                show(f"{precision}: tags at {threshold} in both, of those in either", share)
            difference, kept = (found - exact).abs(), exact >= THRESHOLDS[0]
            show(f"{precision}: largest difference from fp32", f"{difference.max():.5f}")
            show(f"{precision}: mean difference, of tags at {THRESHOLDS[0]}", f"{difference[kept].mean():.6f}")

    @torch.inference_mode()
    def compiled(self) -> None:
        """The network as TAGONCE_COMPILE compiles it."""
        begun = time.perf_counter()
        network = self._network(self.sizes.precision)
        for batch in self.sizes.batches[:2]:
            try:
                forward = compiled(network, self._pixels(batch))
            except (RuntimeError, SettingsError) as error:  # no compiler, or too little memory for this batch
                show(f"compiled {self.sizes.precision}, batch {batch}", first_line(error))
                continue
            self._rate(f"compiled {self.sizes.precision}", forward, batch)
            show("seconds since the start", f"{time.perf_counter() - begun:.0f}")

    # ── measurements ──

    @cached_property
    def spec(self) -> ModelSpec:
        return find_model(self._model_name)

    def _network(self, precision: str) -> Forward:
        return load_network(self.spec, self.device, PRECISIONS[precision])

    def _operations(self) -> int:
        """Floating-point operations of one image; a multiplication and an addition count as two."""
        network = self._network("fp32")
        # As matrix products: not every fused kernel of attention has a formula.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            network(torch.zeros(1, 3, self.spec.size, self.spec.size, device=self.device))
        return int(counter.get_total_flops())

    def _pixels(self, batch: int) -> torch.Tensor:
        """Random, since zeros are faster."""
        pixels = torch.rand(batch, 3, self.spec.size, self.spec.size, device=self.device) * 2 - 1
        return pixels.contiguous(memory_format=torch.channels_last)

    def _rate(self, name: str, network: Forward, batch: int) -> None:
        """Show images/s of batches that are on the device."""
        pixels = self._pixels(batch)
        try:
            seconds = self._seconds(lambda: network(pixels))
        except RuntimeError as error:  # too little memory, no such kernel
            value = first_line(error)
        else:
            value = f"{batch / seconds:,.1f} images/s, {1e3 * seconds:,.1f} ms"
        show(f"{name}, batch {batch}", value)

    def _seconds(self, work: Callable[[], object]) -> float:
        """Median, after two runs that are not counted."""
        seconds = []
        for number in range(2 + self.sizes.repeats):
            if self._on_cuda:
                begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begun.record()
                work()
                ended.record()
                ended.synchronize()
                taken = begun.elapsed_time(ended) / 1e3
            else:
                start = time.perf_counter()
                work()
                taken = time.perf_counter() - start
            if number > 1:
                seconds.append(taken)
        return statistics.median(seconds)

    def _photos(self) -> Path:
        """The folder of the photographs, when the last one is there."""
        folder = photos.copies_folder(self._folder, self._images)
        while not (folder / f"{self._images - 1:06}.jpg").exists():
            time.sleep(0.2)
        return folder

    def _end_to_end(self, processes: int) -> ours.Shared:
        batch = self.sizes.batches[0]
        setup = Setup(self._model_name, len(self.spec.tags), self._photos(), batch, str(self.device), "auto")
        samples: list[float] = []
        with tempfile.TemporaryDirectory(prefix="run-", dir=self._folder) as own, utilisation(self.device, samples):
            shared = ours.on_one_device(setup, Path(own), processes, samples.clear)
        stored = "PostgreSQL" if services.has_postgresql() else "SQLite"
        show(f"{self._images:,} JPEGs of a megapixel to {stored}", f"{shared.images_per_second:,.1f} images/s")
        show("device busy, by each process's own count", ", ".join(f"{share:.0%}" for share in shared.busy))
        if samples:
            show("device busy, by nvidia-smi", f"{statistics.mean(samples):.0f}%")
        return shared

    @property
    def _model_name(self) -> str:
        """As `tagonce --model` takes it."""
        made = {"so400m": random_model.so400m, "tiny": random_model.tiny}.get(self._model)
        return str(made(self._folder)) if made else self._model

    def _decoded(self, number: int) -> list[Decoded]:
        decoder = Decoder(self.spec, max_pixels=Options(batch_size=1).max_pixels)
        files = sorted(self._photos().iterdir())[:number]
        with ThreadPoolExecutor(cores()) as threads:
            return list(threads.map(lambda file: decoder.decode(file.read_bytes()), files))

    def _decode_seconds(self) -> float:
        """CPU seconds an image, from the bytes of the file to the pixels for the device."""
        decoder = Decoder(self.spec, max_pixels=Options(batch_size=1).max_pixels)
        files = [file.read_bytes() for file in sorted(self._photos().iterdir())[:DECODED]]
        decoder.decode(files[0])  # loads the compiled resizer
        begun = time.thread_time()
        for data in files:
            decoder.decode(data)
        return (time.thread_time() - begun) / len(files)

    def _python_seconds(self) -> float:
        """CPU seconds an image of a worker without decoding and without a network (`image_path.py`)."""
        with tempfile.TemporaryDirectory(prefix="run-", dir=self._folder) as own, services.database(Path(own)) as url:
            small = Path(own) / "photos"
            image_path.write_photos(small, self.sizes.small)
            return image_path.measure(small, url)["cpu"] / 1e6

    def _probabilities(self, images: list[Decoded], precision: str) -> torch.Tensor:
        """float32 [images, tags] on the CPU."""
        options = Options(batch_size=self.sizes.batches[0], device=str(self.device), precision=precision)
        found = Inferencer(self.spec, options, floor=0).probabilities(images)
        gc.collect()
        return found


def nvidia_smi(device: torch.device, fields: str) -> list[str]:
    """A command that prints fields of a GPU without their units."""
    number = 0 if device.index is None else device.index
    return ["nvidia-smi", f"--id={number}", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]


@contextmanager
def utilisation(device: torch.device, samples: list[float]) -> Iterator[None]:
    """Collect, each second of the block, the share of time in which the GPU ran a kernel, in percent."""
    if device.type != "cuda" or not shutil.which("nvidia-smi"):
        yield
        return
    process = subprocess.Popen([*nvidia_smi(device, "utilization.gpu"), "--loop=1"], stdout=subprocess.PIPE, text=True)
    with ThreadPoolExecutor(1) as thread:

        def collect() -> None:
            for line in process.stdout or ():
                samples.append(float(line))  # noqa: PERF401 - the list is cleared meanwhile

        thread.submit(collect)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def show(name: str, value: str) -> None:
    print(json.dumps([name, value]), flush=True)


def main(part: str, device: str, model: str, folder: str, images: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    getattr(Bench(device, model, Path(folder), int(images)), part.replace("-", "_"))()


if __name__ == "__main__":
    main(*sys.argv[1:])
