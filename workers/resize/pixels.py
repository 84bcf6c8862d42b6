"""The memory of a Pillow image as a numpy array, without the copy that `numpy.asarray` makes of RGB.

Pillow (from 11.2) exports its memory through the Arrow C data interface, of which the structure below is the part that
is needed: https://arrow.apache.org/docs/format/CDataInterface.html
"""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from workers.resize.geometry import Size

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]
"""[height, width]: a word of four bytes a pixel, with the red byte first in memory."""

_STRIP_PIXELS = 1 << 20
"""4 MiB: Pillow stores an image of 16 MiB and more in several blocks."""


class _ArrowArray(ctypes.Structure):
    """`struct ArrowArray`, up to the field that leads to the pixels."""


_ArrowArray._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
]

_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_capsule_pointer.restype = ctypes.c_void_p


class _Exported:
    """Numpy's array interface of the memory. Arrays keep a reference to it, which keeps the memory alive."""

    def __init__(self, image: Image.Image) -> None:
        _schema, self._capsule = image.__arrow_c_array__()
        array = _ArrowArray.from_address(_capsule_pointer(self._capsule, b"arrow_array"))
        # A list array of four bytes a pixel: the bytes are the second buffer of its only child; the first is for nulls.
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "data": (array.children[0].contents.buffers[1], True),
            "shape": (image.height, image.width),
            "typestr": "=u4",
        }


@dataclass(frozen=True, slots=True)
class Raster:
    """An image in memory that is not Pillow's. It looks like one of Pillow's where the steps after decoding need it.

    `words` become read-only, so that one compiled loop serves them and images of Pillow.
    """

    words: Words
    mode: str = "RGB"
    """RGB, whose fourth byte means nothing; RGBA; or RGBa, which is premultiplied."""

    def __post_init__(self) -> None:
        self.words.flags.writeable = False

    @property
    def size(self) -> Size:
        height, width = self.words.shape
        return width, height

    @property
    def width(self) -> int:
        return self.size[0]

    @property
    def height(self) -> int:
        return self.size[1]

    def bytes(self) -> Bytes:
        """uint8 [height, width, 4], without a copy."""
        return self.words.view(np.uint8).reshape(*self.words.shape, 4)

    def to_pillow(self) -> Image.Image:
        """A copy as RGB or RGBA. Not for RGBa."""
        return Image.frombytes(self.mode, self.size, self.words, "raw", "RGBX" if self.mode == "RGB" else self.mode)


Source = Image.Image | Raster
"""Pixels of four bytes each: RGB, RGBA, RGBa."""


def to_rgb(image: Source) -> Image.Image:
    """An image of Pillow with the first three channels."""
    if isinstance(image, Raster):
        return Image.frombytes("RGB", image.size, image.words, "raw", "RGBX")
    return image if image.mode == "RGB" else image.convert("RGB")


def cropped(image: Source, left: int, right: int) -> Source:
    """Columns `left` to `right` of an image; a raster ends at its last column."""
    if isinstance(image, Raster):
        return Raster(np.ascontiguousarray(image.words[:, left:right]), image.mode)
    return image.crop((left, 0, right, image.height))


def strips(image: Source, begin: int, end: int) -> Iterator[tuple[int, Words]]:
    """Rows `begin` to `end` of an image with four bytes a pixel.

    Yields:
        Number of the first row, and read-only uint32 words [rows, width], with the red byte first in memory.
    """
    begin, end = max(0, begin), min(end, image.height)
    if isinstance(image, Raster):
        yield begin, image.words[begin:end]
        return
    try:
        words = np.asarray(_Exported(image))
    except ValueError:  # it is stored in several blocks; a copy of some rows is not
        height = max(1, _STRIP_PIXELS // image.width)
        for top in range(begin, end, height):
            yield top, np.asarray(_Exported(image.crop((0, top, image.width, min(top + height, end)))))
    else:
        yield begin, words[begin:end]
