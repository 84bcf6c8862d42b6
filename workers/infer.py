"""Infer: from decoded images to scores. The device has its next batch before it is done with this one."""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from db.batches import batched
from db.errors import ModelError
from db.schema import Int16Array
from db.scores import SCALE, Scores
from workers.compiled import compiled
from workers.decode import Decoded
from workers.device import begin_span, device_name, download, pick_device, pick_dtype
from workers.models.network import load_network
from workers.models.spec import ModelSpec
from workers.options import Options
from workers.preprocess import Batch, Preprocess

log = logging.getLogger(__name__)

IN_FLIGHT = 2
"""Forwards at once on a GPU: one that runs and one that waits behind it. A third would only hold memory."""


@dataclass(frozen=True, slots=True)
class Inferred:
    """Scores, and what they cost."""

    scores: list[Scores]
    """At or above the floor, an entry an image, in the order given."""
    wait_seconds: float
    """Until the device was free, launching included."""
    device_seconds: float
    """The device was busy with these images."""


class Inferencer:
    """One model on one device, shared by all threads of the process.

    Args:
        floor: ten-thousandths; lower scores are not given.

    Raises:
        ModelError: the weights do not fit the specification.
        SettingsError: there is no such device.
    """

    def __init__(self, spec: ModelSpec, options: Options, *, floor: int) -> None:
        self.device = pick_device(options.device)
        self.dtype = pick_dtype(options.precision, self.device)
        torch.backends.cudnn.benchmark = True  # there is one shape, so trying out which kernel is best pays
        if options.torch_threads:
            torch.set_num_threads(options.torch_threads)
        network = load_network(spec, self.device, self.dtype)
        self._network = compiled(network, self.device) if options.compile else network
        # A GPU likes one shape for ever (kernels chosen once, no new allocations), and a compiler would begin anew for
        # each. For a CPU the rest of a short batch would only be work.
        self._one_shape = options.compile or self.device.type == "cuda"
        self._preprocess = Preprocess(spec, self.device)
        self._floor = floor
        self.batch_size = options.batch_size
        """Images in one forward; less than was asked for once memory has run out."""
        self._in_flight = threading.Semaphore(IN_FLIGHT)
        # One at a time: two would share the device, double the memory, and be no faster together. For a GPU this covers
        # the launch alone, so that the next batch of another thread is queued while one is computed.
        self._turn = threading.Lock()

    @property
    def where(self) -> tuple[str, str]:
        """Device and precision, for people."""
        return device_name(self.device), str(self.dtype).removeprefix("torch.")

    def scores(self, images: Sequence[Decoded]) -> Inferred:
        """Scores at or above the floor."""
        found: list[Scores] = []
        wait_seconds = device_seconds = 0.0
        while len(found) < len(images):
            size = self.batch_size
            batch = images[len(found) : len(found) + size]
            try:
                part = self._one_batch(batch, size)
            except torch.OutOfMemoryError:
                out_of_memory = True
            else:
                out_of_memory = False
                found += part.scores
                wait_seconds += part.wait_seconds
                device_seconds += part.device_seconds
            # Outside of the except block: while it runs, the traceback keeps the tensors of the failed forward alive.
            if out_of_memory:
                self._halve(size)
        return Inferred(found, wait_seconds, device_seconds)

    def probabilities(self, images: Sequence[Decoded]) -> torch.Tensor:
        """All of them: float32 [images, tags] on the CPU, with nothing cut off or rounded."""
        size = self.batch_size
        with self._turn, torch.inference_mode():
            rows = [self._forward(self._collate(batch, size))[: len(batch)].cpu() for batch in batched(images, size)]
        return torch.cat(rows)

    def warm_up(self) -> None:
        """A first forward of a full batch, where it is special: what fails, fails now, and the first chunk is not slow.

        Raises:
            ModelError: the device has too little memory.
            SettingsError: the network cannot be compiled here.
        """
        if self._one_shape:
            self.time_forward()

    def time_forward(self) -> float:
        """Seconds that the device takes for a full batch of blank images. Raises what `warm_up` does."""
        return self.scores([self._preprocess.blank()] * self.batch_size).device_seconds

    def _one_batch(self, batch: Sequence[Decoded], size: int) -> Inferred:
        collated = self._collate(batch, size)
        begun = time.perf_counter()
        with self._in_flight:
            with self._turn, torch.inference_mode():
                span = begin_span(self.device)
                probabilities = self._forward(collated)
                nan, scores = download(probabilities.isnan().any()), download(quantised(probabilities))
                span.end()
            device_seconds = span.wait()
        wait_seconds = max(0.0, time.perf_counter() - begun - device_seconds)
        if nan:
            # As scores they would look like an image without tags, for ever.
            raise ModelError(
                f"The model gives NaN on {self.where[0]} in {self.where[1]}: try --precision fp32. If that does not "
                "help, the weights or the device are broken."
            )
        return Inferred(cut(scores[: len(batch)].numpy(), self._floor), wait_seconds, device_seconds)

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
        # Of several threads that ran out of memory at the same size, one halves it.
        if self.batch_size == size:
            self.batch_size = size // 2
            log.warning("out of memory on %s: the batch size is %d from now on", self.device, self.batch_size)


def quantised(probabilities: torch.Tensor) -> torch.Tensor:
    """Scores of probabilities, int16 [images, tags], on the same device: half of what has to be copied from it."""
    if probabilities.device.type == "mps":  # has no float64
        probabilities = probabilities.cpu()
    # Exact: a float32 has 24 bits and 10000 has 14, so the product fits the 53 of a float64 and floor() is never off.
    return (probabilities.double() * SCALE).floor().clamp_(0, SCALE).to(torch.int16)


def cut(scores: Int16Array, floor: int) -> list[Scores]:
    """Of every image what will be stored, in its order.

    Args:
        scores: ten-thousandths [images, tags].
        floor: ten-thousandths.
    """
    # On the host and before sorting, because few are left: to sort all of them took four times as long on a CPU.
    found = []
    for row in scores:
        tag_ids = np.flatnonzero(row >= floor)
        order = row[tag_ids].argsort(kind="stable")
        tag_ids = tag_ids[order]
        found.append(Scores(tag_ids.astype(np.int16), row[tag_ids]))
    return found
