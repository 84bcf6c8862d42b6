"""Converts grey of more than eight bits to eight, by the range of its type, as image viewers do."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

from db.errors import ImageError, Reason

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B")
"""Modes with unsigned numbers of at most 16 bits."""
_WHOLE, _FRACTIONS = "I", "F"
"""Modes with 32-bit integers and 32-bit floats."""
_WHITE = 255
_WHITE_IS_ZERO = 0


def eight_bits(image: Image.Image) -> Image.Image:
    """Deep grey as L, or as RGBA if the file declares one grey as transparent. Images of eight bits are returned as is.

    Numbers of 16 bits, and floats from 0 to 1, are scaled by the range of their type. Other values of 32 bits from 0 to
    255 are taken as levels of eight bits. For other ranges the white level is unknown. (Pillow's own conversion clips
    values above 255.)

    Args:
        image: opened from its file, and loaded.

    Raises:
        ImageError: `unsupported`: the white level is unknown.
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
    """`255 * value / white`, rounded half up. For 16 bits that is a 257th, which inverts the widening of eight bits."""
    scaled = values.astype(np.uint32)
    scaled *= 2 * _WHITE
    scaled += white
    scaled //= 2 * white
    return scaled.astype(np.uint8)


def _of_any(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    lowest, highest = values.min(), values.max()
    if not (lowest >= 0 and highest <= _WHITE):  # also false for NaN
        raise ImageError(
            Reason.UNSUPPORTED,
            f"grey of 32 bits from {lowest:g} to {highest:g}, whose white level is unknown; save it with 8 or 16 bits",
        )
    if values.dtype.kind == "f" and highest <= 1:
        return np.rint(values * np.float32(_WHITE)).astype(np.uint8)
    return values.astype(np.uint8)
