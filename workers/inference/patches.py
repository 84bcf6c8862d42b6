"""Preprocess for networks that take any number of patches: a batch is padded to one of a few lengths."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from workers.images.decode import Decoded
from workers.inference.device import Uploads
from workers.inference.preprocess import Batch
from workers.models.spec import PATCH, ModelSpec

EIGHTHS = {"patches": (2, 4, 8), "snap": range(1, 9)}
"""Lengths of a batch, in eighths of the most patches of a picture, by the rule of its size. With `patches` a photograph
has nearly the most; a thumbnail would otherwise cost as much. With `snap` only a square has them."""
_VALUES = PATCH * PATCH * 3
_WHITE = 255


class PatchPreprocess:
    """Batching and normalisation of one model, for one device."""

    def __init__(self, spec: ModelSpec, device: torch.device) -> None:
        self._size = spec.size
        most = (spec.size // PATCH) ** 2
        self._lengths = [most * eighths // 8 for eighths in EIGHTHS[spec.resize]]
        self._mean, self._std = (
            torch.tensor(colour, device=device).repeat(PATCH * PATCH) for colour in (spec.mean, spec.std)
        )
        self._uploads = Uploads(device)

    def blank(self) -> Decoded:
        """A black image with the most patches."""
        return Decoded(np.zeros((self._size, self._size, 3), np.uint8), self._size, self._size, "")

    def shape(self, rows: int) -> tuple[int, ...]:
        """Shape of the network's input for a batch of the greatest length."""
        return rows, 1 + self._lengths[-1], _VALUES

    def collate(self, images: Sequence[Decoded], rows: int) -> Batch:
        """Patches of images, padded to the smallest length that the largest image fits into.

        Args:
            rows: number of images N; more than images if the network needs one shape.
        """
        grids = [tuple(side // PATCH for side in image.pixels.shape[:2]) for image in images]
        most = max(high * wide for high, wide in grids)
        length = next(one for one in self._lengths if one >= most)
        pinned = self._uploads.pinned
        patches = torch.zeros((rows, length, _VALUES), dtype=torch.uint8, pin_memory=pinned)
        # A picture that only fills the batch has one patch: without any, its attention would be NaN.
        sizes = torch.ones((rows, 2), dtype=torch.int32, pin_memory=pinned)
        for image, (high, wide), row, size in zip(images, grids, patches.numpy(), sizes.numpy(), strict=False):
            cells = image.pixels.reshape(high, PATCH, wide, PATCH, 3).swapaxes(1, 2)
            row[: high * wide].reshape(cells.shape)[...] = cells
            size[:] = high, wide
        return Batch(patches, sizes)

    def picture(self, image: Decoded) -> npt.NDArray[np.uint8]:
        """uint8 [rows * 16, columns * 16, 3], RGB: what the network sees of an image, in its own shape."""
        return image.pixels

    def normalise(self, batch: Batch) -> torch.Tensor:
        """The input of `workers.inference.networks.hydra` and `taggerine`: float32 [N, 1 + L, 768] on the device."""
        patches = self._uploads.copy(batch.pixels)
        rows, length, values = patches.shape
        packed = torch.empty((rows, 1 + length, values), dtype=torch.float32, device=patches.device)
        packed[:, 1:] = (patches / _WHITE - self._mean) / self._std
        if batch.boxes is not None:  # as it always is: None is of `Preprocess`
            packed[:, 0, :2] = self._uploads.copy(batch.boxes)
        return packed
