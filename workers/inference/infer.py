"""Infer: from decoded images to scores. `workers.inference.batching` keeps the device busy with it."""

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from db.arrays.batches import batched
from db.arrays.types import Int16Array
from db.errors import ImageError, ModelError, Reason
from db.scores import SCALE, Scores
from workers.images.decode import Decoded
from workers.inference.compile_ahead import CompileAhead
from workers.inference.compiled import Forward, compiled
from workers.inference.device import Span, begin_span, device_name, download, is_out_of_memory, pick_device, pick_dtype
from workers.inference.network import Network, load_network
from workers.inference.onnx_network import OnnxNetwork, pick_onnx_device
from workers.inference.patches import PatchPreprocess
from workers.inference.preprocess import Batch, Preprocess
from workers.inference.self_test import test_images
from workers.models.spec import ModelSpec
from workers.options import Options

log = logging.getLogger(__name__)

COMPILED_AHEAD = {"cuda"}
"""Types of device for which `compile=None` compiles, while batches are computed without. A CPU gains a tenth of a
forward, and meanwhile the compiler takes the cores that compute."""
COMPILED_DIFFERS = {torch.float32: 0.001, torch.float16: 0.05, torch.bfloat16: 0.4}
"""Largest accepted difference between probabilities of the compiled and the uncompiled network. The order of operations
changes less in each type; a kernel that is wrong for a GPU changes more."""


@dataclass(frozen=True, slots=True)
class Inferred:
    """Scores of images, and the time they took."""

    scores: list[Scores | None]
    """Scores at or above the floor, one entry an image, in the given order. None: the model gives NaN for it."""
    device_seconds: float
    """Time that the device was busy with these images."""


@dataclass(slots=True)
class Launched:
    """A batch on its way through the device."""

    images: Sequence[Decoded]
    size: int
    """The batch size when it was launched."""
    results: tuple[torch.Tensor, torch.Tensor] | None
    """(NaN? bool [rows], scores int16 [rows, tags]), complete when the span is over. None: memory ran out."""
    span: Span

    def is_done(self) -> bool:
        """Whether `Inferencer.finish` would not wait."""
        return self.results is None or self.span.is_over()


class Inferencer:
    """One model on one device. Only one thread may use it at a time: in a worker, `DeviceThread`.

    Args:
        floor: in ten-thousandths; lower scores are dropped.

    Raises:
        ModelError: the weights do not fit the specification, or the memory of the device.
        SettingsError: this machine has no such device.
    """

    def __init__(self, spec: ModelSpec, options: Options, *, floor: int) -> None:
        on_onnx = spec.engine == "onnx"
        self.device = pick_onnx_device(options.device) if on_onnx else pick_device(options.device)
        self.dtype = torch.float32 if on_onnx else pick_dtype(options.precision, self.device)
        torch.backends.cudnn.benchmark = True  # all batches have one shape, so measuring kernels pays off
        torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32; no other precision is affected
        if options.torch_threads:
            torch.set_num_threads(options.torch_threads)
        self.use_device()
        try:
            self._network: Network | OnnxNetwork = (
                OnnxNetwork(spec, self.device, options) if on_onnx else load_network(spec, self.device, self.dtype)
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ModelError(
                f"{self.where[0]} has too little memory to load {spec.name} in {self.where[1]}."
            ) from error
        self._compiled: dict[tuple[int, ...], Forward] = {}
        """The network, compiled for inputs of a shape."""
        self._ahead: CompileAhead | None = None
        self._compiles_ahead = False
        # With one shape, a GPU selects kernels once and allocates nothing again, and the network is compiled once. On a
        # CPU, filling a short batch would only cost time.
        self._one_shape = self.device.type == "cuda" or (
            self.device.type in COMPILED_AHEAD if options.compile is None else options.compile
        )
        if isinstance(self._network, OnnxNetwork):
            self.dtype = self._network.dtype
            self._one_shape = self._one_shape and self._network.batch is None
        self._preprocess = (PatchPreprocess if spec.takes_patches else Preprocess)(spec, self.device)
        self._spec, self._options = spec, options
        self._floor = floor
        self._exact: Inferencer | None = None
        """The same model in fp32, created at the first NaN of a lower precision."""
        self.batch_size = options.batch_size
        """Images in one forward; less than was asked for once memory has run out."""

    def use_device(self) -> None:
        """To be called once in each thread that uses this object.

        Each thread of CUDA begins on GPU 0, and leaving a stream's context makes a context there, which takes memory.
        """
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)

    @property
    def nan(self) -> str:
        """Detail of the failure of an image without scores."""
        return f"the model gives NaN for it on {self.where[0]}" + (", in fp32 too" if self._can_be_exact else "")

    @property
    def _can_be_exact(self) -> bool:
        """Whether the model can be computed in fp32. An ONNX file computes in the types that it states."""
        return self._spec.engine == "torch"

    @property
    def where(self) -> tuple[str, str]:
        """Device and precision, for people."""
        return device_name(self.device), str(self.dtype).removeprefix("torch.")

    def scores(self, images: Sequence[Decoded]) -> Inferred:
        """Scores at or above the floor. Images whose activations overflow a lower precision are computed in fp32.

        Raises:
            ModelError: the model gives NaN for all of the images and for the test images, or a single image needs too
                much memory.
        """
        found, device_seconds = [], 0.0
        for batch in self._batches(images):
            part = self.finish(self.launch(batch))
            found += part.scores
            device_seconds += part.device_seconds
        return Inferred(found, device_seconds)

    def launch(self, images: Sequence[Decoded]) -> Launched:
        """Start a forward of one batch, at most `batch_size` images. On CUDA the device computes when this returns."""
        if self._compiles_ahead:
            self._look_after_compiling()
        launched = Launched(images, self.batch_size, None, begin_span(self.device))
        try:
            with torch.inference_mode():
                batch = self._collate(images, launched.size)
                launched.span = begin_span(self.device)  # while the host collates, an idle device stays idle
                probabilities = self._forward(batch)
                nan = probabilities.isnan().any(dim=1)
                launched.results = download(nan), download(quantised(probabilities))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        launched.span.end()
        return launched

    def finish(self, launched: Launched) -> Inferred:
        """Wait for a batch. The scores and errors are those of `scores`."""
        return self._without_nan(launched.images, self._wait(launched))

    def probabilities(self, images: Sequence[Decoded]) -> torch.Tensor:
        """Unrounded probabilities of all tags: float32 [images, tags] on the CPU.

        Raises:
            ImageError: `nan`: some are NaN, in fp32 too.
        """
        size = self.batch_size
        with torch.inference_mode():
            rows = [self._forward(self._collate(batch, size))[: len(batch)].cpu() for batch in batched(images, size)]
        probabilities = torch.cat(rows)
        if not probabilities.isnan().any():
            return probabilities
        if self.dtype == torch.float32 or not self._can_be_exact:
            raise ImageError(Reason.NAN, self.nan)
        return self._in_fp32().probabilities(images)

    def picture(self, image: Decoded) -> npt.NDArray[np.uint8]:
        """uint8 [size, size, 3], RGB: what the network sees of an image, before normalisation."""
        return self._preprocess.picture(image)

    def warm_up(self) -> None:
        """Run a full batch if the first forward is slow, as on a GPU or compiled, so that errors show before a chunk.

        From then on the network is compiled in another process, if compiling is left to the program.

        Raises:
            ModelError: the device has too little memory for a single image.
            SettingsError: the network cannot be compiled here, and `compile` asks for it.
        """
        if self._one_shape:
            self.time_forwards(1)
        asked = self._options.compile is None and self._spec.engine == "torch"
        self._compiles_ahead = asked and self.device.type in COMPILED_AHEAD

    def compile(self) -> None:
        """Compile the network for the batch size, in this process. Takes seconds if torch's cache has it, else minutes.

        Raises what `workers.inference.compiled.compiled` does.
        """
        blank = self._preprocess.collate([self._preprocess.blank()], self.batch_size)
        with torch.inference_mode():
            images = self._preprocess.normalise(blank)
            self._compiled[tuple(images.shape)] = compiled(self._network, images)

    def time_forwards(self, number: int) -> list[float]:
        """Seconds that the device takes for each of some full batches of blank images, two of them in flight.

        Raises what `warm_up` does.
        """
        launched = deque([self._launch_blank()])
        seconds = []
        for _ in range(number - 1):
            launched.append(self._launch_blank())
            seconds.append(self.finish(launched.popleft()).device_seconds)
        return [*seconds, self.finish(launched.popleft()).device_seconds]

    def _launch_blank(self) -> Launched:
        return self.launch([self._preprocess.blank()] * self.batch_size)

    def works(self) -> bool:
        """Whether a test image gets scores. In a lower precision some images overflow and others do not."""
        images = test_images(self._spec.size)
        return any(
            scores is not None for batch in self._batches(images) for scores in self._wait(self.launch(batch)).scores
        )

    def _look_after_compiling(self) -> None:
        """Compile ahead for the batch size, and take what has been compiled."""
        size = self.batch_size
        if self._preprocess.shape(size) in self._compiled:
            return
        if self._ahead is None or self._ahead.size != size:  # halved meanwhile
            if self._ahead is not None:
                self._ahead.stop()
                self._ahead = None
            try:
                self._ahead = CompileAhead(self._spec, self._options, size)
            except OSError as error:  # no memory for another process, no room for its output
                self._stay_uncompiled(str(error))
            return
        if self._ahead.is_running:
            return
        begun = time.monotonic()
        failure = self._ahead.failure() or self._take_compiled()
        self._ahead.stop()
        self._ahead = None
        if failure is None:
            log.info("compiled for batches of %d; loading it took %.1f s", size, time.monotonic() - begun)
        else:
            self._stay_uncompiled(failure)

    def _stay_uncompiled(self, why: str) -> None:
        self._compiles_ahead = False
        log.warning("the network stays uncompiled, which is slower: %s", why)

    def _take_compiled(self) -> str | None:
        try:
            self.compile()
            difference = self._difference_of_compiled()
        except Exception as error:  # noqa: BLE001 - the uncompiled network works
            return str(error)
        if difference <= COMPILED_DIFFERS[self.dtype]:
            return None
        del self._compiled[self._preprocess.shape(self.batch_size)]
        return (
            f"compiled, its probabilities of test images differ by {difference:.4f}. Please report this model and GPU"
        )

    def _difference_of_compiled(self) -> float:
        """The largest difference between probabilities of the compiled and the uncompiled network, on test images."""
        largest = 0.0
        forward = self._compiled[self._preprocess.shape(self.batch_size)]
        with torch.inference_mode():
            for images in self._batches(test_images(self._spec.size)):
                tensor = self._preprocess.normalise(self._collate(images, self.batch_size))
                plain, own = (run(tensor)[: len(images)] for run in (self._network, forward))
                both_nan = plain.isnan() & own.isnan()
                difference = (plain - own).abs().masked_fill(both_nan, 0.0).nan_to_num(1.0)
                largest = max(largest, float(difference.max()))
        return largest

    def _wait(self, launched: Launched) -> Inferred:
        device_seconds = 0.0
        if launched.results is not None:
            try:
                device_seconds = launched.span.wait()
            except RuntimeError as error:  # the device reports here what failed after the launch
                if not is_out_of_memory(error):
                    raise
                launched.results = None
        # Outside of the except block: inside, the traceback keeps the tensors of the failed forward alive.
        if launched.results is None:
            return self._in_pieces(launched.images, launched.size)
        nan, scores = (one[: len(launched.images)] for one in launched.results)
        found: list[Scores | None] = [*cut(scores.numpy(), self._floor)]
        for position in nan.nonzero().flatten().tolist():
            found[position] = None  # as scores it would look like an image without tags, for ever
        return Inferred(found, device_seconds)

    def _in_pieces(self, images: Sequence[Decoded], size: int) -> Inferred:
        """Batches of half the size and less, one after the other."""
        self._halve(size)
        parts = [self._wait(self.launch(piece)) for piece in self._batches(images)]
        return Inferred([one for part in parts for one in part.scores], sum(part.device_seconds for part in parts))

    def _without_nan(self, images: Sequence[Decoded], inferred: Inferred) -> Inferred:
        nan = [position for position, scores in enumerate(inferred.scores) if scores is None]
        if not nan:
            return inferred
        if len(nan) == len(images) and not self.works():
            raise ModelError(
                f"The model gives NaN on {self.where[0]} in {self.where[1]}, even for test images"
                + (": try --precision fp32. If that does not help, the" if self._can_be_exact else ". The")
                + " weights or the device are broken."
            )
        if self.dtype == torch.float32 or not self._can_be_exact:
            return inferred
        again = self._in_fp32().scores([images[position] for position in nan])
        for position, scores in zip(nan, again.scores, strict=True):
            inferred.scores[position] = scores
        log.info("NaN in %s for %d of %d images: computed in fp32", self.where[1], len(nan), len(images))
        return Inferred(inferred.scores, inferred.device_seconds + again.device_seconds)

    def _in_fp32(self) -> "Inferencer":
        if self._exact is None:
            options = self._options.model_copy(update={"precision": "fp32", "compile": False, "batch_size": 1})
            self._exact = Inferencer(self._spec, options, floor=self._floor)
        return self._exact

    def _batches(self, images: Sequence[Decoded]) -> Iterator[Sequence[Decoded]]:
        """Each as large as the batch size is by then: it may have been halved meanwhile."""
        start = 0
        while start < len(images):
            size = self.batch_size
            yield images[start : start + size]
            start += size

    def _collate(self, batch: Sequence[Decoded], size: int) -> Batch:
        return self._preprocess.collate(batch, size if self._one_shape else len(batch))

    def _forward(self, batch: Batch) -> torch.Tensor:
        images = self._preprocess.normalise(batch)
        shape = tuple(images.shape)
        if self._options.compile and shape not in self._compiled:
            self._compiled[shape] = compiled(self._network, images)
        return self._compiled.get(shape, self._network)(images)

    def _halve(self, size: int) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if size == 1:
            raise ModelError(f"{self.where[0]} has too little memory for a single image with this model.")
        # Of two batches in flight that ran out of memory at the same size, the first one halves it.
        if self.batch_size == size:
            self.batch_size = size // 2
            log.warning("out of memory on %s: the batch size is now %d", self.where[0], self.batch_size)


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
        found.append(Scores(tag_ids.astype(np.int32), row[tag_ids]))
    return found
