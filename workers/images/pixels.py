"""The memory of a Pillow image as a numpy array, without the copy that `numpy.asarray` makes of RGB.

Pillow (from 11.2) exports its memory through the Arrow C data interface, of which the structure below is the part that
is needed: https://arrow.apache.org/docs/format/CDataInterface.html
"""

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Words = npt.NDArray[np.uint32]

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


def strips(image: Image.Image, begin: int, end: int) -> Iterator[tuple[int, Words]]:
    """Rows `begin` to `end` of an image with four bytes a pixel: RGB, RGBA, RGBa.

    Yields:
        Number of the first row, and read-only uint32 words [rows, width], with the red byte first in memory.
    """
    begin, end = max(0, begin), min(end, image.height)
    try:
        words = np.asarray(_Exported(image))
    except ValueError:  # it is stored in several blocks; a copy of some rows is not
        height = max(1, _STRIP_PIXELS // image.width)
        for top in range(begin, end, height):
            yield top, np.asarray(_Exported(image.crop((0, top, image.width, min(top + height, end)))))
    else:
        yield begin, words[begin:end]
