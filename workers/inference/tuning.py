"""Measures the best batch size of a model on a device, and stores it in tagonce's cache folder."""

import gc
import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import timm
import torch

from workers.cache_folder import cache_folder
from workers.cpus import cores
from workers.inference import onnx_network
from workers.inference.device import device_name, pick_device, pick_dtype
from workers.inference.infer import Inferencer
from workers.models.spec import ModelSpec
from workers.options import Options

log = logging.getLogger(__name__)

SMALLEST = {"cuda": 8}
"""First size of the search, by type of device; 1 for others."""
LARGEST = {"cpu": 64}
"""Last size of the search, by type of device. For others, memory limits it."""
GAIN = 1.05
"""Doubling the size must increase images/s by at least this factor."""
FORWARDS = 3
"""Forwards timed for each size, after one that is not timed. The fastest counts: other load only slows them down."""


def best_batch_size(spec: ModelSpec, options: Options) -> int:
    """The best batch size, from the cache or measured. `options.batch_size` is ignored.

    Raises:
        ModelError: the weights do not fit the network, or a single image does not fit into the memory of the device.
        SettingsError: this machine has no such device, or no compiler.
    """
    key, file = _key(spec, options), cache_folder() / "batch-sizes.json"
    known = _read(file)
    if key not in known:
        inferencer = Inferencer(spec, options, floor=0)
        kind = inferencer.device.type
        known[key] = search(_measure(inferencer), SMALLEST.get(kind, 1), LARGEST.get(kind))
        del inferencer
        if kind == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
        _write(file, known)
        log.info("the best batch size for %s is %d, stored in %s", spec.name, known[key], file)
    return known[key]


def search(images_per_second: Callable[[int], float | None], smallest: int, largest: int | None) -> int:
    """The best batch size: doubled until that gains less than `GAIN`, or memory runs out.

    Args:
        images_per_second: measures a batch size; returns None if memory runs out.
        smallest: first size; halved if memory does not suffice even for it.
        largest: last size; None: no limit but memory.
    """
    size, best = smallest, images_per_second(smallest)
    while best is None and size > 1:
        size //= 2
        best = images_per_second(size)
    while best is not None and (largest is None or size < largest):
        faster = images_per_second(2 * size)
        if faster is None or faster < GAIN * best:
            break
        size, best = 2 * size, faster
    return size


def _measure(inferencer: Inferencer) -> Callable[[int], float | None]:
    def images_per_second(size: int) -> float | None:
        inferencer.batch_size = size
        seconds = inferencer.time_forwards(1 + FORWARDS)[1:]
        if inferencer.batch_size < size:  # it halves itself when memory runs out
            return None
        return size / min(seconds)

    return images_per_second


def _key(spec: ModelSpec, options: Options) -> str:
    """Key of the cache: all that the best size depends on, as JSON."""
    device = pick_device(options.device)
    on_cuda = device.type == "cuda"
    return json.dumps(
        {
            "device": device_name(device),
            "memory": torch.cuda.get_device_properties(device).total_memory if on_cuda else None,
            "threads": None if on_cuda else options.torch_threads or cores(),
            "model": [spec.architecture, spec.model_args, spec.head, spec.size, len(spec.tags)],
            "precision": str(pick_dtype(options.precision, device)),
            "compile": options.compile,
            "versions": [torch.__version__, timm.__version__],
            **({"onnx": [spec.weights_sha256(), onnx_network.version()]} if spec.engine == "onnx" else {}),
        },
        sort_keys=True,
    )


def _read(file: Path) -> dict[str, int]:
    """Best sizes by key; empty if the file does not exist or is broken, so that they are measured again."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: size for key, size in content.items() if isinstance(size, int) and size > 0}


def _write(file: Path, known: dict[str, int]) -> None:
    """Replace the file atomically. If that fails, the next start measures again."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, encoding="utf-8", delete=False) as new:
            json.dump(known, new, indent=2)
        Path(new.name).replace(file)
    except OSError as error:
        log.warning("the batch size cannot be stored in %s: %s", file, error)
