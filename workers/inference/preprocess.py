"""Preprocess: from decoded images to the input tensor of the network, by arithmetic on the batch on the device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from workers.images.decode import Decoded
from workers.inference.device import Uploads
from workers.models.spec import Colour, ModelSpec

ALPHA_CHANNELS = 4


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of a batch, still 8-bit: the copy to the device is a quarter of that of float32."""

    pixels: torch.Tensor
    """uint8 [N, S, S, C]; C is 4 if any image has transparency, else 3. Undefined outside of the boxes. Of
    `workers.inference.patches`, [N, L, 768]."""
    boxes: torch.Tensor | None
    """int32 [N, 4]: top, bottom, left, right of the image on its canvas; None if all images fill it. Of
    `workers.inference.patches`, [N, 2]: rows and columns of patches."""


class Preprocess:
    """Batching and normalisation of one model, for one device."""

    def __init__(self, spec: ModelSpec, device: torch.device) -> None:
        self._size = spec.size
        self._device = device
        self._uploads = Uploads(device)
        self._reverse = spec.channel_order == "BGR"
        self._mean, self._std, fill = (self._line(colour) for colour in (spec.mean, spec.std, spec.fill))
        # 255 levels to the range of `scale`, and colours in 0..1 to it.
        self._levels, white = (255, 1) if spec.scale == "0..1" else (1, 255)
        # The value of the padding after normalisation.
        self._fill = fill if spec.fill_when == "after" else (fill * white - self._mean) / self._std
        self._background = None if spec.background is None else self._line(spec.background) * white

    def blank(self) -> Decoded:
        """A black image of the input size."""
        return Decoded(np.zeros((self._size, self._size, 3), np.uint8), self._size, self._size, "")

    def shape(self, rows: int) -> tuple[int, ...]:
        """Shape of the network's input."""
        return rows, 3, self._size, self._size

    def collate(self, images: Sequence[Decoded], rows: int) -> Batch:
        """Images centred on their canvases; an odd pixel of padding is at the bottom and at the right.

        Args:
            rows: number of canvases N; more than images if the network needs one shape.
        """
        channels = max(image.pixels.shape[2] for image in images)
        pinned = self._uploads.pinned
        # Not initialised: pixels outside of the boxes are not used.
        canvas = torch.empty((rows, self._size, self._size, channels), dtype=torch.uint8, pin_memory=pinned)
        boxes = torch.zeros((rows, 4), dtype=torch.int32, pin_memory=pinned)
        for image, whole, box in zip(images, canvas.numpy(), boxes.numpy(), strict=False):
            height, width, own_channels = image.pixels.shape
            top, left = (self._size - height) // 2, (self._size - width) // 2
            target = whole[top : top + height, left : left + width]
            if channels == own_channels:
                target[...] = image.pixels
            else:
                # numpy copies three bytes of four pixel by pixel, but one byte of four in a single loop.
                for channel in range(own_channels):
                    target[..., channel] = image.pixels[..., channel]
                target[..., 3] = 255
            box[:] = top, top + height, left, left + width
        filled = bool((boxes.numpy() == (0, self._size, 0, self._size)).all())
        return Batch(canvas, None if filled else boxes)

    def normalise(self, batch: Batch) -> torch.Tensor:
        """The input of the network: float32 [N, 3, S, S] on the device, channels last, bit for bit as the references.

        The steps are: divide by 255, unless `scale` is 0..255; with alpha, rgb * alpha + background * (1 - alpha);
        (x - mean) / std; the fill outside of the image, which for JTP is 0 after normalising, the mean, and not an
        8-bit colour; RGB to BGR if the model needs it. The last only permutes, so it is done first, while a pixel takes
        a quarter of the memory.
        """
        pixels = self._uploads.copy(batch.pixels)
        colours = pixels[..., :3].flip(3) if self._reverse else pixels[..., :3]
        # Rows of S * 3 values: with an inner dimension of 3 the same arithmetic takes five times as long on a CPU.
        lines = colours.to(torch.float32).view(-1, self._size, self._size * 3).div_(self._levels)
        if pixels.shape[3] == ALPHA_CHANNELS and self._background is not None:
            alpha = pixels[..., 3].to(torch.float32).div_(255).repeat_interleave(3, dim=2)
            lines = lines * alpha + self._background * (1 - alpha)
        lines.sub_(self._mean).div_(self._std)
        if batch.boxes is not None:
            lines = torch.where(self._inside(self._uploads.copy(batch.boxes)), lines, self._fill)
        return lines.view(-1, self._size, self._size, 3).permute(0, 3, 1, 2)

    def picture(self, image: Decoded) -> npt.NDArray[np.uint8]:
        """uint8 [S, S, 3], RGB: what the network sees of an image, for a comparison by eye."""
        seen = self.normalise(self.collate([image], 1))[0].permute(1, 2, 0).reshape(self._size, self._size * 3)
        levels = (seen * self._std + self._mean).mul(255).round().clamp(0, 255).to(torch.uint8)
        colours = levels.view(self._size, self._size, 3)
        found: npt.NDArray[np.uint8] = (colours.flip(2) if self._reverse else colours).cpu().numpy()
        return found

    def _line(self, colour: Colour) -> torch.Tensor:
        """float32 [S * 3] on the device: the colour for each pixel of a row, in the channel order of the network."""
        in_order = colour[::-1] if self._reverse else colour
        return torch.tensor(in_order, device=self._device).repeat(self._size)

    def _inside(self, boxes: torch.Tensor) -> torch.Tensor:
        """Bool [N, S, S * 3]: true inside the boxes."""
        line = torch.arange(self._size, device=self._device)
        top, bottom, left, right = boxes.unsqueeze(2).unbind(1)
        rows = (line >= top) & (line < bottom)
        columns = ((line >= left) & (line < right)).repeat_interleave(3, dim=1)
        return rows.unsqueeze(2) & columns.unsqueeze(1)
