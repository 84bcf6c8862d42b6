"""Infer: from decoded images to scores. The next batch is queued on the device before the current one is done."""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from db.arrays.batches import batched
from db.arrays.types import Int16Array
from db.errors import ImageError, ModelError, Reason
from db.scores import SCALE, Scores
from workers.images.decode import Decoded
from workers.inference.compiled import compiled
from workers.inference.device import begin_span, device_name, download, is_out_of_memory, pick_device, pick_dtype
from workers.inference.network import load_network
from workers.inference.preprocess import Batch, Preprocess
from workers.models.spec import ModelSpec
from workers.options import Options

log = logging.getLogger(__name__)

IN_FLIGHT = 2
"""Concurrent forwards on a GPU: one that runs and one queued behind it. A third would only use memory."""


@dataclass(frozen=True, slots=True)
class Inferred:
    """Scores of images, and the time they took."""

    scores: list[Scores | None]
    """Scores at or above the floor, one entry an image, in the given order. None: the model gives NaN for it."""
    wait_seconds: float
    """Time until the device was free, including the launch."""
    device_seconds: float
    """Time that the device was busy with these images."""


class Inferencer:
    """One model on one device, shared by all threads of the process.

    Args:
        floor: in ten-thousandths; lower scores are dropped.

    Raises:
        ModelError: the weights do not fit the specification.
        SettingsError: this machine has no such device.
    """

    def __init__(self, spec: ModelSpec, options: Options, *, floor: int) -> None:
        self.device = pick_device(options.device)
        self.dtype = pick_dtype(options.precision, self.device)
        torch.backends.cudnn.benchmark = True  # all batches have one shape, so measuring kernels pays off
        torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32; no other precision is affected
        if options.torch_threads:
            torch.set_num_threads(options.torch_threads)
        network = load_network(spec, self.device, self.dtype)
        self._network = compiled(network, self.device) if options.compile else network
        # With one shape, a GPU selects kernels once and allocates nothing again, and the network is compiled once. On a
        # CPU, filling a short batch would only cost time.
        self._one_shape = options.compile or self.device.type == "cuda"
        self._preprocess = Preprocess(spec, self.device)
        self._spec, self._options = spec, options
        self._floor = floor
        self._exact: Inferencer | None = None
        """The same model in fp32, created at the first NaN of a lower precision."""
        self.batch_size = options.batch_size
        """Images in one forward; halved whenever memory runs out."""
        self._in_flight = threading.Semaphore(IN_FLIGHT)
        # One forward at a time: two would share the device and double the memory, and not be faster. On a GPU the lock
        # covers only the launch, so that the next batch of another thread is queued while one is computed.
        self._turn = threading.Lock()

    @property
    def nan(self) -> str:
        """Detail of the failure of an image without scores."""
        return f"the model gives NaN for it on {self.where[0]}, in fp32 too"

    @property
    def where(self) -> tuple[str, str]:
        """Device and precision, for people."""
        return device_name(self.device), str(self.dtype).removeprefix("torch.")

    def scores(self, images: Sequence[Decoded]) -> Inferred:
        """Scores at or above the floor. Images whose activations overflow a lower precision are computed in fp32.

        Raises:
            ModelError: the model gives NaN for all of the images and a blank one, or a single image needs too much
                memory.
        """
        inferred = self._batches(images)
        nan = [position for position, scores in enumerate(inferred.scores) if scores is None]
        if not nan:
            return inferred
        if len(nan) == len(images):
            self._check_blank()
        if self.dtype == torch.float32:
            return inferred
        again = self._in_fp32().scores([images[position] for position in nan])
        for position, scores in zip(nan, again.scores, strict=True):
            inferred.scores[position] = scores
        log.info("NaN in %s for %d of %d images: computed in fp32", self.where[1], len(nan), len(images))
        return Inferred(
            inferred.scores,
            inferred.wait_seconds + again.wait_seconds,
            inferred.device_seconds + again.device_seconds,
        )

    def _batches(self, images: Sequence[Decoded]) -> Inferred:
        found: list[Scores | None] = []
        wait_seconds = device_seconds = 0.0
        while len(found) < len(images):
            size = self.batch_size
            batch = images[len(found) : len(found) + size]
            try:
                part = self._one_batch(batch, size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                out_of_memory = True
            else:
                out_of_memory = False
                found += part.scores
                wait_seconds += part.wait_seconds
                device_seconds += part.device_seconds
            # Outside of the except block, where the traceback would keep the tensors of the failed forward alive.
            if out_of_memory:
                self._halve(size)
        return Inferred(found, wait_seconds, device_seconds)

    def probabilities(self, images: Sequence[Decoded]) -> torch.Tensor:
        """Unrounded probabilities of all tags: float32 [images, tags] on the CPU.

        Raises:
            ImageError: `nan`: some are NaN, in fp32 too.
        """
        size = self.batch_size
        with self._turn, torch.inference_mode():
            rows = [self._forward(self._collate(batch, size))[: len(batch)].cpu() for batch in batched(images, size)]
        probabilities = torch.cat(rows)
        if not probabilities.isnan().any():
            return probabilities
        if self.dtype == torch.float32:
            raise ImageError(Reason.NAN, self.nan)
        return self._in_fp32().probabilities(images)

    def warm_up(self) -> None:
        """Run a full batch if the first forward is slow, as on a GPU or compiled, so that errors show before a chunk.

        Raises:
            ModelError: the device has too little memory for a single image.
            SettingsError: the network cannot be compiled here.
        """
        if self._one_shape:
            self.time_forward()

    def time_forward(self) -> float:
        """Seconds of the device for a full batch of blank images. Raises the errors of `warm_up`."""
        return self.scores([self._preprocess.blank()] * self.batch_size).device_seconds

    def _one_batch(self, batch: Sequence[Decoded], size: int) -> Inferred:
        collated = self._collate(batch, size)
        begun = time.perf_counter()
        with self._in_flight:
            with self._turn, torch.inference_mode():
                span = begin_span(self.device)
                probabilities = self._forward(collated)
                nan, scores = download(probabilities.isnan().any(dim=1)), download(quantised(probabilities))
                span.end()
            device_seconds = span.wait()
        wait_seconds = max(0.0, time.perf_counter() - begun - device_seconds)
        found: list[Scores | None] = [*cut(scores[: len(batch)].numpy(), self._floor)]
        for position in nan[: len(batch)].nonzero().flatten().tolist():
            found[position] = None  # NaN as scores would be stored as an image without tags
        return Inferred(found, wait_seconds, device_seconds)

    def _check_blank(self) -> None:
        """Raise ModelError if a blank image gives NaN too: then the device is broken, not the images."""
        if self._batches([self._preprocess.blank()]).scores == [None]:
            raise ModelError(
                f"The model gives NaN on {self.where[0]} in {self.where[1]}, even for a blank image: try --precision "
                "fp32. If that gives NaN too, the weights or the device are broken."
            )

    def _in_fp32(self) -> "Inferencer":
        with self._turn:
            if self._exact is None:
                options = self._options.model_copy(update={"precision": "fp32", "compile": False, "batch_size": 1})
                self._exact = Inferencer(self._spec, options, floor=self._floor)
            return self._exact

    def _collate(self, batch: Sequence[Decoded], size: int) -> Batch:
        return self._preprocess.collate(batch, size if self._one_shape else len(batch))

    def _forward(self, batch: Batch) -> torch.Tensor:
        probabilities: torch.Tensor = self._network(self._preprocess.normalise(batch))
        return probabilities

    def _halve(self, size: int) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if size == 1:
            raise ModelError(f"{self.device} has too little memory for a single image with this model.")
        # If several threads run out of memory at the same size, only the first halves it.
        if self.batch_size == size:
            self.batch_size = size // 2
            log.warning("out of memory on %s: the batch size is now %d", self.device, self.batch_size)


def quantised(probabilities: torch.Tensor) -> torch.Tensor:
    """Scores of float32 probabilities: int16 [images, tags] on the same device, which halves the copy to the host."""
    if probabilities.device.type == "mps":  # MPS has no float64
        probabilities = probabilities.cpu()
    # Exact: a float32 has 24 bits and 10000 has 14, so the product fits the 53 of a float64 and floor() is never off.
    return (probabilities.double() * SCALE).floor().clamp_(0, SCALE).to(torch.int16)


def cut(scores: Int16Array, floor: int) -> list[Scores]:
    """The scores of each image at or above the floor, ascending, as they are stored.

    Args:
        scores: in ten-thousandths [images, tags].
        floor: in ten-thousandths.
    """
    # Cut before sorting, and on the host, because few scores are left: sorting all took four times as long on a CPU.
    found = []
    for row in scores:
        tag_ids = np.flatnonzero(row >= floor)
        order = row[tag_ids].argsort(kind="stable")
        tag_ids = tag_ids[order]
        found.append(Scores(tag_ids.astype(np.int16), row[tag_ids]))
    return found
