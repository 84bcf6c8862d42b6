"""EXIF orientation: reads it within limits, and turns an image by it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from workers.images.jpeg_segments import application_segments
from workers.images.metadata import first_number
from workers.resize.pixels import Raster, Source

_HEAD = b"Exif\0\0"
_ORIENTATION = 274
"""Number of the tag."""
_T = Image.Transpose
_TURNS = {
    2: _T.FLIP_LEFT_RIGHT,
    3: _T.ROTATE_180,
    4: _T.FLIP_TOP_BOTTOM,
    5: _T.TRANSPOSE,
    6: _T.ROTATE_270,
    7: _T.TRANSVERSE,
    8: _T.ROTATE_90,
}
"""How to turn an image of each orientation but 1 (EXIF 2.3, tag 274), counterclockwise as Pillow counts."""
_OF_ARRAYS: dict[int, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
    2: np.fliplr,
    3: lambda words: words[::-1, ::-1],
    4: np.flipud,
    5: np.transpose,
    6: lambda words: np.rot90(words, -1),
    7: lambda words: words[::-1, ::-1].T,
    8: np.rot90,
}


def orientation_of(data: bytes, exif: bytes | None = None) -> int:
    """The orientation of an image, from 1 to 8; 1 if none is stated, or what is stated cannot be read.

    Args:
        data: the file. Of a JPEG the EXIF is read here, because it is hidden from Pillow.
        exif: that of another file, as Pillow gives it.
    """
    if data.startswith(b"\xff\xd8"):
        exif = next((one for one in application_segments(data, 0xE1) if one.startswith(_HEAD)), None)
    if not exif:
        return 1
    found = first_number(exif.removeprefix(_HEAD), _ORIENTATION)
    return found if found in _TURNS else 1


def turned(image: Source, orientation: int) -> Source:
    """The image as it is to be seen."""
    if orientation == 1:
        return image
    if isinstance(image, Raster):
        return Raster(np.ascontiguousarray(_OF_ARRAYS[orientation](image.words)), image.mode)
    return image.transpose(_TURNS[orientation])
