"""Alternatives without tagonce: one model, one folder, a file of tags at 0.01 and above. Each way is one process.

    python bench/straight.py loop|script|loader|ray MODEL PHOTOS OUT [--batch-size 8] [--threads 2] [--device cpu]

    loop    the model on tensors that are on the device already: the upper limit of any pipeline
    script  PIL, the published transforms of the model, the model, a CSV, in sequence
    loader  the same with torch's DataLoader, with one worker process a core
    ray     Ray Data as in its guide to batch inference: read_binary_files, map, map_batches with an actor, Parquet

All use the network of the worker, loaded by `workers/inference/network.py` or `onnx_network.py`, and run a batch before
timing begins. The output is JSON: `images`, `seconds` until the last row in the file, and of `loop` `cpu_seconds`. This
excludes the start of Python, of Ray and of its actor, and loading the model; it includes starting the processes of the
DataLoader.

Ray would decode while its actor loads the model, which no other way does; so its first images wait for the model. The
actor requests no core, since otherwise one of two cores would be left for decoding, and sets the number of threads
itself: Ray would give it one.
"""

import argparse
import csv
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.transforms.functional as tv
from PIL import Image
from timm.data import create_transform

from db.arrays.batches import batched
from workers.inference.device import pick_device, pick_dtype
from workers.inference.network import load_network
from workers.inference.onnx_network import OnnxNetwork
from workers.models.registry import find_model
from workers.models.spec import ModelSpec
from workers.options import Options

FLOOR = 0.01
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Job:
    """Parameters of a run, which can be sent to a process of Ray."""

    model: str
    photos: Path
    out: Path
    batch_size: int
    threads: int
    """Of torch, on a CPU."""
    device: str
    precision: str

    @property
    def paths(self) -> list[Path]:
        """The same order everywhere, and so the same batches."""
        return sorted(self.photos.iterdir())


class Tagger:
    """The model, after a first batch."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job.threads)
        self.spec = find_model(job.model)
        self.device = pick_device(job.device)
        options = Options(batch_size=job.batch_size, torch_threads=job.threads)
        self.network = (
            OnnxNetwork(self.spec, self.device, options)
            if self.spec.engine == "onnx"
            else load_network(self.spec, self.device, pick_dtype(job.precision, self.device))
        )
        self.probabilities(torch.zeros(job.batch_size, 3, self.spec.size, self.spec.size))

    @torch.inference_mode()
    def probabilities(self, pixels: torch.Tensor) -> torch.Tensor:
        """float32 [N, tags] on the CPU."""
        found: torch.Tensor = self.network(pixels.to(self.device, non_blocking=True)).cpu()
        return found


def transform_of(spec: ModelSpec) -> Callable[[Image.Image], torch.Tensor]:
    """From an open image to float32 [3, S, S], with the steps that the model's authors publish."""
    if spec.resize == "fit":
        return partial(jtp_pixels, size=spec.size)
    stages = create_transform(
        (3, spec.size, spec.size),
        interpolation=spec.filter,
        mean=spec.mean,
        std=spec.std,
        crop_pct=spec.crop_pct,
        crop_mode=spec.crop_mode,
    )
    return lambda image: stages(image.convert("RGB"))


def jtp_pixels(image: Image.Image, *, size: int) -> torch.Tensor:
    """Fit into a square, composite over grey, normalise, pad: `docs/models.md` names the source of each step."""
    image = image.convert("RGBA")
    scale = min(size / image.height, size / image.width)
    fitted = [max(1, min(round(side * scale), size)) for side in (image.height, image.width)]
    pixels = tv.to_tensor(tv.resize(image, fitted, tv.InterpolationMode.LANCZOS))
    colour, alpha = pixels[:3], pixels[3:]
    normal = tv.normalize(colour * alpha + 0.5 * (1 - alpha), [0.5] * 3, [0.5] * 3)
    return tv.center_crop(normal, [size, size])


class Files(torch.utils.data.Dataset[tuple[str, torch.Tensor]]):
    """The dataset of a DataLoader."""

    def __init__(self, paths: Sequence[Path], spec: ModelSpec) -> None:
        self._paths = paths
        self._transform = transform_of(spec)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, position: int) -> tuple[str, torch.Tensor]:
        path = self._paths[position]
        with Image.open(path) as image:
            return path.name, self._transform(image)


class CsvFile:
    """Image, tag, probability."""

    def __init__(self, job: Job, spec: ModelSpec) -> None:
        self._file = job.out.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._tags = [tag.name for tag in spec.tags]

    def add(self, names: Sequence[str], probabilities: torch.Tensor) -> None:
        for name, row in zip(names, probabilities, strict=True):
            kept = (row >= FLOOR).nonzero().flatten().tolist()
            self._writer.writerows((name, tag, self._tags[tag], f"{row[tag]:.6f}") for tag in kept)

    def close(self) -> None:
        self._file.close()


def loop(job: Job) -> tuple[float, float]:
    """Seconds, and those of the CPU. All probabilities are saved with numpy, for comparison with the other ways."""
    tagger = Tagger(job)
    files = Files(job.paths, tagger.spec)
    tensors = torch.utils.data.DataLoader(files, batch_size=job.batch_size, num_workers=CORES)
    ready = [pixels.to(tagger.device) for _names, pixels in tensors]
    with torch.inference_mode():
        begun, cpu = time.perf_counter(), time.process_time()
        found = torch.cat([tagger.network(pixels) for pixels in ready]).cpu()
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    np.save(job.out, found.numpy())
    return seconds, cpu


def script(job: Job) -> float:
    """Seconds."""
    tagger = Tagger(job)
    files = Files(job.paths, tagger.spec)
    batches = (
        zip(*map(files.__getitem__, numbers), strict=True) for numbers in batched(range(len(files)), job.batch_size)
    )
    return _to_csv(job, tagger, ((names, torch.stack(pixels)) for names, pixels in batches))


def loader(job: Job) -> float:
    """Seconds."""
    tagger = Tagger(job)
    batches = torch.utils.data.DataLoader(
        Files(job.paths, tagger.spec),
        batch_size=job.batch_size,
        num_workers=CORES,
        pin_memory=tagger.device.type == "cuda",
    )
    return _to_csv(job, tagger, batches)


def _to_csv(job: Job, tagger: Tagger, batches: Iterable[tuple[Sequence[str], torch.Tensor]]) -> float:
    begun = time.perf_counter()
    csv_file = CsvFile(job, tagger.spec)
    for names, pixels in batches:
        csv_file.add(names, tagger.probabilities(pixels))
    csv_file.close()
    return time.perf_counter() - begun


class Actor:
    """Holds the model. It creates a file when it is ready, at which timing begins."""

    def __init__(self, job: Job, ready: Path) -> None:
        self._tagger = Tagger(job)
        ready.touch()

    def __call__(self, batch: dict[str, np.ndarray]) -> Any:
        """An Arrow table with a row an image."""
        import pyarrow as pa

        probabilities = self._tagger.probabilities(torch.from_numpy(batch["pixels"].copy())).numpy()
        kept = [np.flatnonzero(row >= FLOOR) for row in probabilities]
        return pa.table({
            "image": [Path(path).name for path in batch["path"]],
            "tags": kept,
            "probabilities": [row[tags] for row, tags in zip(probabilities, kept, strict=True)],
        })  # fmt: skip


def ray_data(job: Job) -> float:
    """Seconds."""
    import ray

    ready = job.out.with_suffix(".ready")
    transform = transform_of(find_model(job.model))

    def decode(row: dict[str, Any]) -> dict[str, Any]:
        while not ready.exists():
            time.sleep(0.01)
        with Image.open(io.BytesIO(row["bytes"])) as image:
            return {"path": row["path"], "pixels": transform(image).numpy()}

    # A short path: it contains unix sockets.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        ray.data.DataContext.get_current().enable_progress_bars = False
        (
            ray.data.read_binary_files(str(job.photos), include_paths=True)
            .map(decode)
            .map_batches(
                Actor,
                fn_constructor_args=(job, ready),
                batch_size=job.batch_size,
                compute=ray.data.ActorPoolStrategy(size=1),
                num_cpus=0,
                num_gpus=1 if job.device.startswith("cuda") else 0,
            )
            .write_parquet(str(job.out))
        )
        ray.shutdown()
    return max(path.stat().st_mtime for path in job.out.iterdir()) - ready.stat().st_mtime


WAYS = {"loop": loop, "script": script, "loader": loader, "ray": ray_data}


def main() -> None:
    """Run one way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("model")
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=CORES)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    options = vars(parser.parse_args())
    way = options.pop("way")
    job = Job(**options)
    found = WAYS[way](job)
    seconds, cpu = found if isinstance(found, tuple) else (found, None)
    print(json.dumps({"images": len(job.paths), "seconds": seconds, "cpu_seconds": cpu}))


if __name__ == "__main__":
    main()
