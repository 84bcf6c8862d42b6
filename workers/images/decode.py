"""Decodes a file to the resized pixels of a model's input, or gives the reason why it cannot.

Sound JPEGs and PNGs are decoded by `quick_jpeg` and `quick_png`, all other files by Pillow, to the same pixels.
`workers.images.safe_open` limits the cost of untrusted files. The steps after the resize run on whole batches, in
`workers.inference.preprocess`.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from workers.images import quick_jpeg, quick_png
from workers.images.profiles import in_srgb, may_have_profile
from workers.images.safe_open import Opener
from workers.images.turned import orientation_of, turned
from workers.models.spec import ModelSpec
from workers.resize.geometry import Size, largest_between, target_of
from workers.resize.pixels import Source
from workers.resize.resize import Resizer

_QUICK = {b"\xff\xd8": ("jpeg", quick_jpeg), b"\x89P": ("png", quick_png)}
"""By the first bytes of a file: Pillow's name of the format, and the module that may decode it."""


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
    """Decodes and resizes as one model's reference does. Threads may share it; decoders release the interpreter lock.

    As in the references of all models here, only the first frame of an animation is used. EXIF orientation and ICC
    profiles are ignored, unless the model's reference applies them.

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
        self._needs_metadata = spec.orientation != "none" or spec.profile != "none"
        quick_jpeg.gives_pillows_pixels()
        quick_png.warm_up()

    def decode(self, data: bytes) -> Decoded:
        """Decode one file.

        Raises:
            ImageError: `corrupt`, `unsupported` or `too_large`.
        """
        return self._quickly(data) or self._by_pillow(data)

    def _quickly(self, data: bytes) -> Decoded | None:
        """A sound file of a usual kind; None for any other."""
        if data[:2] not in _QUICK:
            return None
        name, kind = _QUICK[data[:2]]
        if self._needs_metadata and self._is_described(data):
            return None
        size = kind.size_of(data)
        if size is None or math.prod(size) > self._opener.max_pixels or self._is_reduced(name, size):
            return None
        try:
            with self._opener.in_flight.taken(math.prod(size)):
                raster = kind.decoded(data, size)
                if raster is None:
                    return None
                self._refuse_elongated(*size)
                upright = self._upright(raster, data, None) if self._needs_metadata else raster
                return Decoded(self._resizer.pixels(upright, upright.size), raster.width, raster.height, name)
        except (MemoryError, OSError, ValueError):  # also of the resize; Pillow's path names the reason
            return None

    def _is_described(self, data: bytes) -> bool:
        """Whether a file may have metadata that this model needs and that only Pillow's path reads."""
        of_png = self._spec.orientation == "exif" and data.startswith(b"\x89P") and b"eXIf" in data
        return of_png or (self._spec.profile == "srgb" and may_have_profile(data))

    def _is_reduced(self, name: str, size: Size) -> bool:
        """Whether Pillow would decode a JPEG at reduced size."""
        if name != "jpeg" or self._target is None:
            return False
        return any(side >= 4 * target for side, target in zip(size, self._target(size), strict=True))

    def _by_pillow(self, data: bytes) -> Decoded:
        with self._opener.opened(data, self._target) as opened:
            self._refuse_elongated(*opened.original_size)
            image, size = opened.image, opened.original_size
            upright = self._upright(image, data, image.info.get("exif"))
            if upright.size != image.size:
                size = size[::-1]
            if self._spec.profile == "srgb" and isinstance(upright, Image.Image):
                upright = in_srgb(upright)
            return Decoded(self._resizer.pixels(upright, size), opened.width, opened.height, opened.format)

    def _upright(self, image: Source, data: bytes, exif: bytes | None) -> Source:
        if self._spec.orientation == "none":
            return image
        return turned(image, orientation_of(data, exif))

    def _refuse_elongated(self, width: int, height: int) -> None:
        """Refuse an image that is too large in between: of 50,000 x 1, the square, or the size before the crop."""
        spec, long, short = self._spec, max(width, height), min(width, height)
        if spec.resize == "fit" or spec.takes_patches:
            return
        if spec.resize == "square-pad":
            needed = long * long
        elif spec.resize == "stages":
            needed = largest_between(spec.stages, (width, height))
        else:
            side = spec.size / spec.crop_pct
            needed = round(side * side * long / short) if spec.crop_mode == "center" else 0
        if needed > self._opener.max_pixels:
            raise self._opener.too_large(f"its {width} x {height} would become {needed:,} in between")
