"""The memory of a Pillow image as numpy sees it, without the copy that `numpy.asarray` makes of RGB.

Pillow (from 11.2) lends its memory through the Arrow C data interface. The two structures below are the whole of what
has to be known of it: https://arrow.apache.org/docs/format/CDataInterface.html
"""

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Words = npt.NDArray[np.uint32]

_STRIP_PIXELS = 1 << 20
"""4 MiB: below the 16 MiB from which on Pillow keeps an image in several pieces."""


class _ArrowArray(ctypes.Structure):
    """`struct ArrowArray` up to where the pixels are."""


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


class _Lent:
    """What numpy asks for the memory, and what it holds on to, so that Pillow keeps it."""

    def __init__(self, image: Image.Image) -> None:
        _schema, self._capsule = image.__arrow_c_array__()
        array = _ArrowArray.from_address(_capsule_pointer(self._capsule, b"arrow_array"))
        # A list of four bytes a pixel: the bytes are the second buffer of the only child; the first would mark nulls.
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "data": (array.children[0].contents.buffers[1], True),
            "shape": (image.height, image.width),
            "typestr": "=u4",
        }


def strips(image: Image.Image, begin: int, end: int) -> Iterator[tuple[int, Words]]:
    """Some rows of an image whose pixels have four bytes: RGB, RGBA, RGBa.

    Yields:
        the number of the first row, and read-only words [rows, width], with the red byte first in memory.
    """
    begin, end = max(0, begin), min(end, image.height)
    try:
        words = np.asarray(_Lent(image))
    except ValueError:  # it is in pieces; a copy of a part is not
        height = max(1, _STRIP_PIXELS // image.width)
        for top in range(begin, end, height):
            yield top, np.asarray(_Lent(image.crop((0, top, image.width, min(top + height, end)))))
    else:
        yield begin, words[begin:end]
