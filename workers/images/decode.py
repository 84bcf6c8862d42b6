"""Decodes a file to the resized pixels of a model's input, or gives the reason why it cannot.

`workers.images.safe_open` limits the cost of untrusted files. The steps after the resize run on whole batches, in
`workers.inference.preprocess`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.images.geometry import target_of
from workers.images.resize import Resizer
from workers.images.safe_open import Opener
from workers.models.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Decoded:
    """One image, ready for a batch."""

    pixels: npt.NDArray[np.uint8]
    """[height, width, 3] after the resize; 4 channels with straight alpha. Read-only."""
    width: int
    """Of the original, in pixels."""
    height: int
    """Of the original, in pixels."""
    format: str
    """Pillow's name in lower case: `jpeg`, `png`, `webp`, ..."""


class Decoder:
    """Decodes and resizes as one model's reference does. Threads may share it; Pillow releases the interpreter lock.

    As in the references of all models here, only the first frame of an animation is used, and EXIF orientation and ICC
    profiles are ignored.

    Args:
        spec: the model.
        max_pixels: larger images are refused by their header, before anything is decoded.
        pixels_in_flight: limit for all images decoded at once. None: twice `max_pixels`.
    """

    def __init__(self, spec: ModelSpec, max_pixels: int, *, pixels_in_flight: int | None = None) -> None:
        self._spec = spec
        self._opener = Opener(max_pixels, pixels_in_flight=pixels_in_flight)
        self._target = (lambda size: target_of(spec, size).size) if spec.dct_scaling else None
        self._resizer = Resizer(spec)

    def decode(self, data: bytes) -> Decoded:
        """Decode one file.

        Raises:
            ImageError: `corrupt`, `unsupported` or `too_large`.
        """
        with self._opener.opened(data, self._target) as opened:
            self._refuse_elongated(*opened.original_size)
            pixels = self._resizer.pixels(opened.image, opened.original_size)
            return Decoded(pixels, opened.width, opened.height, opened.format)

    def _refuse_elongated(self, width: int, height: int) -> None:
        """Refuse an image that is too large in between: of 50,000 x 1, the square, or the size before the crop."""
        spec, long, short = self._spec, max(width, height), min(width, height)
        if spec.resize == "fit":
            return
        if spec.resize == "square-pad":
            needed = long * long
        else:
            side = spec.size / spec.crop_pct
            needed = round(side * side * long / short) if spec.crop_mode == "center" else 0
        if needed > self._opener.max_pixels:
            raise self._opener.too_large(f"its {width} x {height} would become {needed:,} in between")
