"""Pillow's arithmetic of transparency in 8 bits, bit for bit, in a fraction of its time.

Words are little-endian: red is the lowest byte of a word and alpha the highest.
"""

import numpy as np

from workers.models.spec import Colour
from workers.resize.jit import compiled
from workers.resize.pixels import Raster, Source, Words, strips


def is_opaque(image: Source) -> bool:
    """Whether no pixel of an image of mode RGBA is transparent."""
    return all(_is_opaque(words) for _row, words in strips(image, 0, image.height))


def premultiplied(image: Source) -> Raster:
    """RGBa of RGBA, as `convert("RGBa")`."""
    out = np.empty((image.height, image.width), np.uint32)
    for row, words in strips(image, 0, image.height):
        _premultiply(words, out[row:])
    return Raster(out, "RGBa")


def over(image: Source, background: Colour) -> Raster:
    """RGBA over an opaque colour, as RGB: what `Image.alpha_composite` gives."""
    out = np.empty((image.height, image.width), np.uint32)
    for row, words in strips(image, 0, image.height):
        _blend(words, *to_bytes(background), out[row:])
    return Raster(out)


def to_bytes(colour: Colour) -> tuple[int, int, int]:
    """A colour with parts in 0..1 as parts in 0..255, rounded half to even."""
    red, green, blue = (round(255 * part) for part in colour)
    return red, green, blue


_ALPHA = np.uint32(0xFF000000)
"""Bits of alpha in a word."""


@compiled
def _is_opaque(words: Words) -> bool:
    height, width = words.shape
    for row in range(height):
        common = _ALPHA
        for column in range(width):
            common &= words[row, column]
        if common != _ALPHA:
            return False
    return True


@compiled
def _premultiply(words: Words, out: Words) -> None:
    height, width = words.shape
    for row in range(height):
        for column in range(width):
            word = words[row, column]
            alpha = word >> np.uint32(24)
            red = _divided((word & np.uint32(255)) * alpha)
            green = _divided((word >> np.uint32(8) & np.uint32(255)) * alpha)
            blue = _divided((word >> np.uint32(16) & np.uint32(255)) * alpha)
            out[row, column] = _word(red, green, blue, alpha)


@compiled
def _blend(words: Words, red: int, green: int, blue: int, out: Words) -> None:
    height, width = words.shape
    under_red, under_green, under_blue = np.uint32(red), np.uint32(green), np.uint32(blue)
    for row in range(height):
        for column in range(width):
            word = words[row, column]
            alpha = word >> np.uint32(24)
            rest = np.uint32(255) - alpha
            out[row, column] = _word(
                _divided((word & np.uint32(255)) * alpha + under_red * rest),
                _divided((word >> np.uint32(8) & np.uint32(255)) * alpha + under_green * rest),
                _divided((word >> np.uint32(16) & np.uint32(255)) * alpha + under_blue * rest),
                np.uint32(255),
            )


@compiled
def _divided(product: np.uint32) -> np.uint32:
    """A 255th, rounded to the nearest: exact for products of two bytes, and for sums of these whose weights are 255."""
    rounded = product + np.uint32(128)
    return (rounded + (rounded >> np.uint32(8))) >> np.uint32(8)


@compiled
def _word(red: np.uint32, green: np.uint32, blue: np.uint32, alpha: np.uint32) -> np.uint32:
    return red | green << np.uint32(8) | blue << np.uint32(16) | alpha << np.uint32(24)
