"""Grey of more than eight bits in eight, by the range of its type, as programs that show pictures do it."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

from db.errors import ImageError, Reason

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B")
"""Modes whose numbers are of 16 bits, or of fewer, without a sign."""
_WHOLE, _FRACTIONS = "I", "F"
"""Of 32 bits."""
_WHITE = 255
_WHITE_IS_ZERO = 0


def eight_bits(image: Image.Image) -> Image.Image:
    """L for grey of more bits; RGBA where the file makes one grey transparent. What has eight bits stays as it is.

    16 bits are scaled by the range of their type, and so are fractions from 0 to 1. Numbers of 32 bits and fractions
    from 0 to 255 are taken for levels of eight bits. Of others nothing says which is white. (Pillow's own conversion
    cuts off whatever is above 255.)

    Args:
        image: as opened from its file, and loaded.

    Raises:
        ImageError: `unsupported`: nothing says which number is white.
    """
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode in _SIXTEEN_BITS or (image.mode == _WHOLE and image.format == "PPM"):
        (bits,) = tags.get(BITSPERSAMPLE, (16,))
        grey = _of_numbers(np.asarray(image), white=2**bits - 1)
    elif image.mode in (_WHOLE, _FRACTIONS):
        grey = _of_any(np.asarray(image))
    else:
        return image
    if tags.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO:
        grey = _WHITE - grey
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return Image.fromarray(grey)
    alpha = np.where(np.asarray(image) == transparent, 0, _WHITE).astype(np.uint8)
    return Image.merge("RGBA", [Image.fromarray(band) for band in (grey, grey, grey, alpha)])


def _of_numbers(values: npt.NDArray[Any], white: int) -> npt.NDArray[np.uint8]:
    """`255 * value / white`, rounded half up: of 16 bits a 257th, which gives back what eight bits were made into."""
    scaled = values.astype(np.uint32)
    scaled *= 2 * _WHITE
    scaled += white
    scaled //= 2 * white
    return scaled.astype(np.uint8)


def _of_any(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    lowest, highest = values.min(), values.max()
    if not (lowest >= 0 and highest <= _WHITE):  # nor if one is no number
        raise ImageError(
            Reason.UNSUPPORTED,
            f"grey of 32 bits from {lowest:g} to {highest:g}: nothing says what is white; save it with 8 or 16 bits",
        )
    if values.dtype.kind == "f" and highest <= 1:
        return np.rint(values * np.float32(_WHITE)).astype(np.uint8)
    return values.astype(np.uint8)
