"""From the bytes of a file to the pixels a model wants, or to the reason why not.

What a stranger's file may cost is bounded in `workers.images.safe_open`. What comes after the resize is arithmetic on a
whole batch and is in `workers.inference.preprocess`.
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
    """One image, ready to be put into a batch."""

    pixels: npt.NDArray[np.uint8]
    """[height, width, 3], or 4 with straight alpha, after the resize. Read-only."""
    width: int
    """Of the original, in pixels."""
    height: int
    """Of the original, in pixels."""
    format: str
    """Pillow's name in lower case: `jpeg`, `png`, `webp`, ..."""


class Decoder:
    """Decodes and resizes as one model's reference does. Threads may share it; Pillow lets go of the interpreter lock.

    As the references of the models here do: only the first frame of an animation, no rotation by EXIF and no
    conversion by ICC profile.

    Args:
        spec: the model.
        max_pixels: larger images are refused by their header, before anything is decoded.
        pixels_in_flight: of all images that are decoded at once. None: twice the above.
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
        """A strip of 50,000 x 1 is small, but the square around it, or what is resized to be cropped, is not."""
        spec, long, short = self._spec, max(width, height), min(width, height)
        if spec.resize == "fit":
            return
        if spec.resize == "square-pad":
            needed = long * long
        else:
            side = spec.size / spec.crop_pct
            needed = round(side * side * long / short) if spec.crop_mode == "center" else 0
        if needed > self._opener.max_pixels:
            raise self._opener.too_large(f"its {width} x {height} would become {needed:,} on the way")
