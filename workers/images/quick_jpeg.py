"""Decodes a sound JPEG to the pixels that Pillow gives, without Pillow's objects for the header and the image.

simplejpeg calls the same library, libjpeg-turbo. Only a file without any defect is decoded; Pillow decides on every
other, so that its answer stays the same.
"""

import io
from functools import cache

import numpy as np
import simplejpeg
from PIL import Image

from workers.images.jpeg_segments import has_too_many_scans
from workers.resize.geometry import Size
from workers.resize.pixels import Raster

_SEGMENTS = 1_000
"""Limit of segments of a header. Pillow refuses a file with several times as many."""
_TABLES = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xEE), 0xEF})
"""Markers of tables, restart intervals, comments and applications. Not Adobe's, which may declare other colours."""
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive, with Huffman codes."""
_SCAN = 0xDA
_SAMPLINGS = ("420", "422", "440", "444", "411", "Gray")
_GREY, _COLOUR = b"\1", b"\3"
"""Components of a frame: those of grey and of YCbCr."""


def size_of(jpeg: bytes) -> Size | None:
    """Width and height, or None if `decoded` cannot decode this file."""
    size, at = None, 2
    for _segment in range(_SEGMENTS):
        if jpeg[at : at + 1] != b"\xff" or at + 4 > len(jpeg):
            return None
        marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker in _FRAMES and size is None:
            if jpeg[at + 4 : at + 5] != b"\x08" or jpeg[at + 9 : at + 10] not in (_GREY, _COLOUR):
                return None
            size = int.from_bytes(jpeg[at + 7 : at + 9], "big"), int.from_bytes(jpeg[at + 5 : at + 7], "big")
        elif marker == _SCAN:
            return size
        elif marker not in _TABLES:
            return None
        at += 2 + length
    return None


@cache
def gives_pillows_pixels() -> bool:
    """Whether both copies of libjpeg give the same pixels, by some small files; compared once in a process.

    The wheels of Pillow and simplejpeg contain the same library, whose pixels have been the same for years. Pillow may
    also be built with another one, which enlarges the colours in another way.
    """
    noise = np.random.default_rng(0).integers(0, 256, (19, 35, 3), np.uint8)
    files = [simplejpeg.encode_jpeg(noise, 90, "RGB", sampling) for sampling in _SAMPLINGS]
    progressive = io.BytesIO()
    Image.open(io.BytesIO(files[0])).save(progressive, "jpeg", quality=60, progressive=True)
    for file in (*files, progressive.getvalue()):
        pixels = simplejpeg.decode_jpeg(file, "RGB", strict=True)
        if not np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))):
            return False
    return True


def decoded(jpeg: bytes, size: Size) -> Raster | None:
    """The pixels of a file with this size as RGB, or None if anything about it is unusual.

    Raises:
        MemoryError: for the pixels.
    """
    if has_too_many_scans(jpeg) or not gives_pillows_pixels():
        return None
    width, height = size
    words = np.empty((height, width), np.uint32)
    try:
        simplejpeg.decode_jpeg(jpeg, "RGBX", buffer=words, strict=True)
    except ValueError:
        return None
    return Raster(words)
