"""Preprocess: from decoded images to the tensor that the network takes. All arithmetic, on the batch, on the device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from workers.decode import Decoded
from workers.models.spec import ModelSpec

ALPHA_CHANNELS = 4


@dataclass(frozen=True, slots=True)
class Batch:
    """Images side by side, still 8-bit: a quarter of what float32 would cost on the way to the device."""

    pixels: torch.Tensor
    """uint8 [N, S, S, C], C = 4 when any image has transparency."""
    boxes: torch.Tensor | None
    """int32 [N, 4]: top, bottom, left, right of the picture on its canvas; None when all of them fill it."""


class Preprocess:
    """Batching and normalisation of one model."""

    def __init__(self, spec: ModelSpec) -> None:
        self._size = spec.size
        self._background = spec.background
        self._reverse = spec.channel_order == "BGR"
        self._mean = torch.tensor(spec.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(spec.std).view(1, 3, 1, 1)
        fill = torch.tensor(spec.fill).view(1, 3, 1, 1)
        # What the network sees in the padding, before the channels are swapped.
        self._fill = fill if spec.fill_when == "after" else (fill - self._mean) / self._std

    def blank(self) -> Decoded:
        """A black image, for a first forward."""
        return Decoded(np.zeros((self._size, self._size, 3), np.uint8), self._size, self._size, "")

    def collate(self, images: Sequence[Decoded]) -> Batch:
        """Each image in the middle of its canvas; an odd pixel of padding goes to the bottom and to the right."""
        channels = max(image.pixels.shape[2] for image in images)
        canvas = np.zeros((len(images), self._size, self._size, channels), np.uint8)
        boxes = np.empty((len(images), 4), np.int32)
        for position, image in enumerate(images):
            height, width, own_channels = image.pixels.shape
            top, left = (self._size - height) // 2, (self._size - width) // 2
            target = canvas[position, top : top + height, left : left + width]
            target[..., :own_channels] = image.pixels
            if channels > own_channels:
                target[..., 3] = 255
            boxes[position] = top, top + height, left, left + width
        filled = bool((boxes == (0, self._size, 0, self._size)).all())
        return Batch(torch.from_numpy(canvas), None if filled else torch.from_numpy(boxes))

    def normalise(self, batch: Batch, device: torch.device) -> torch.Tensor:
        """float32 [N, 3, S, S] on the device, in the steps and the order of the references, to the bit.

        divide by 255; where there is alpha, rgb * alpha + background * (1 - alpha); (x - mean) / std; the fill outside
        of the picture, for JTP 0 after all that, which is the mean and no 8-bit colour; RGB to BGR where it is wanted.
        """
        pixels = batch.pixels.to(device).permute(0, 3, 1, 2).to(torch.float32).div_(255)
        if pixels.shape[1] == ALPHA_CHANNELS:
            pixels = self._composite(pixels)
        pixels = pixels.sub_(self._mean.to(device)).div_(self._std.to(device))
        if batch.boxes is not None:
            pixels = torch.where(self._inside(batch.boxes.to(device)), pixels, self._fill.to(device))
        return pixels.flip(1) if self._reverse else pixels

    def _composite(self, pixels: torch.Tensor) -> torch.Tensor:
        if self._background is None:
            return pixels[:, :3]
        colour = torch.tensor(self._background, device=pixels.device).view(1, 3, 1, 1)
        alpha = pixels[:, 3:]
        return pixels[:, :3] * alpha + colour * (1 - alpha)

    def _inside(self, boxes: torch.Tensor) -> torch.Tensor:
        """Bool [N, 1, S, S]: true on the picture."""
        line = torch.arange(self._size, device=boxes.device).view(1, -1)
        top, bottom, left, right = boxes.unsqueeze(2).unbind(1)
        rows = (line >= top) & (line < bottom)
        columns = (line >= left) & (line < right)
        return (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)
