"""Infer: from decoded images to scores, one forward on the device at a time."""

import logging
import threading
from collections.abc import Sequence

import torch

from db.batches import batched
from db.errors import ModelError, SettingsError
from db.scores import SCALE, Scores
from workers.decode import Decoded
from workers.models.network import load_network
from workers.models.spec import ModelSpec
from workers.options import Options
from workers.preprocess import Preprocess

log = logging.getLogger(__name__)

_PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_BF16_CAPABILITY = (8, 0)


class Inferencer:
    """One model on one device, shared by all threads of the process.

    Args:
        floor: ten-thousandths; lower scores never leave the device.

    Raises:
        ModelError: the weights do not fit the specification.
        SettingsError: there is no such device.
    """

    def __init__(self, spec: ModelSpec, options: Options, *, floor: int) -> None:
        self.device = pick_device(options.device)
        self.dtype = pick_dtype(options.precision, self.device)
        torch.backends.cudnn.benchmark = True  # there is one shape, so trying out which kernel is best pays
        self._network = load_network(spec, self.device, self.dtype)
        self._preprocess = Preprocess(spec)
        self._floor = floor
        self._batch_size = options.batch_size
        # One forward at a time: two would share the device and double the memory, and be no faster together.
        self._lock = threading.Lock()

    @property
    def where(self) -> tuple[str, str]:
        """Device and precision, for people."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)
        return name, str(self.dtype).removeprefix("torch.")

    def scores(self, images: Sequence[Decoded]) -> list[Scores]:
        """Scores at or above the floor, an entry an image, in the order given."""
        found: list[Scores] = []
        while len(found) < len(images):
            size = self._batch_size
            batch = images[len(found) : len(found) + size]
            try:
                found += self._one_batch(batch, size)
            except torch.OutOfMemoryError:
                out_of_memory = True
            else:
                out_of_memory = False
            # Outside of the except block: while it runs, the traceback keeps the tensors of the failed forward alive.
            if out_of_memory:
                self._halve(size)
        return found

    def probabilities(self, images: Sequence[Decoded]) -> torch.Tensor:
        """All of them: float32 [images, tags] on the CPU, with nothing cut off or rounded."""
        rows = [self._forward(batch, len(batch)).cpu() for batch in batched(images, self._batch_size)]
        return torch.cat(rows)

    def warm_up(self) -> None:
        """One forward of a full batch on a GPU: a lack of memory shows now, and the first chunk is not the slow one."""
        if self.device.type != "cpu":
            self.scores([self._preprocess.blank()] * self._batch_size)

    def _one_batch(self, batch: Sequence[Decoded], size: int) -> list[Scores]:
        # A GPU likes one shape for ever (kernels chosen once, no new allocations); a CPU would only work for nothing.
        rows = size if self.device.type == "cuda" else len(batch)
        probabilities = self._forward(batch, rows)
        if probabilities.isnan().any():
            # As scores they would look like an image without tags, for ever.
            raise ModelError(
                f"The model gives NaN on {self.where[0]} in {self.where[1]}: try --precision fp32. If that does not "
                "help, the weights or the device are broken."
            )
        return keep(probabilities, self._floor)

    def _forward(self, batch: Sequence[Decoded], rows: int) -> torch.Tensor:
        collated = self._preprocess.collate(batch)
        with self._lock, torch.inference_mode():
            pixels = self._preprocess.normalise(collated, self.device)
            if missing := rows - len(batch):
                pixels = torch.cat([pixels, pixels.new_zeros(missing, *pixels.shape[1:])])
            probabilities: torch.Tensor = self._network(pixels)
        return probabilities[: len(batch)]

    def _halve(self, size: int) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if size == 1:
            raise ModelError(f"{self.device} has too little memory for a single image with this model.")
        # Of several threads that ran out of memory at the same size, one halves it.
        if self._batch_size == size:
            self._batch_size = size // 2
            log.warning("out of memory on %s: the batch size is %d from now on", self.device, self._batch_size)


def keep(probabilities: torch.Tensor, floor: int) -> list[Scores]:
    """Quantise and cut, on the tensor's device, so that only what will be stored is copied from it.

    Args:
        probabilities: float32 [images, tags].
        floor: ten-thousandths.
    """
    if probabilities.device.type == "mps":  # has no float64
        probabilities = probabilities.cpu()
    # Exact: a float32 has 24 bits and 10000 has 14, so the product fits the 53 of a float64 and floor() is never off.
    scores = (probabilities.double() * SCALE).floor().clamp_(0, SCALE).to(torch.int16)
    ordered, tag_ids = scores.sort(dim=1, stable=True)
    kept = ordered >= floor
    counts = kept.sum(dim=1).tolist()
    flat_scores = ordered[kept].cpu().numpy()
    flat_ids = tag_ids[kept].to(torch.int16).cpu().numpy()
    found, start = [], 0
    for count in counts:
        found.append(Scores(flat_ids[start : start + count], flat_scores[start : start + count]))
        start += count
    return found


def pick_device(name: str) -> torch.device:
    """`auto` is the first CUDA GPU, else Apple's, else the CPU.

    Raises:
        SettingsError: no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first_line = str(error).partition("\n")[0]
        raise SettingsError(
            f"The device {name!r} (TAGONCE_DEVICE, --device) cannot be used here: {first_line}"
        ) from error
    return device


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type of weights and activations. Probabilities are float32 whatever it is."""
    if precision != "auto":
        return _PRECISIONS[precision]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= _BF16_CAPABILITY else torch.float16
