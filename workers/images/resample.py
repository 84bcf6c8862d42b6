"""Resizing with Pillow's arithmetic, bit for bit, in a fraction of its time: compiled, many pixels an instruction.

The arithmetic is that of Pillow for 8-bit images (`ImagingResample` in src/libImaging/Resample.c): weights in float64,
stretched over the source where it shrinks and summing to 1, then rounded to 22 binary places; first along the rows,
then along the columns, or the other way round, with 8-bit pixels in between. Integers add up to the same in any order.
Which pass is first depends on the shape, and on the Pillow that is installed: 12 and 13 differ for tall images.

A pixel is a word of 32 bits, as Pillow keeps RGB and RGBA: its four bytes are treated alike, the fourth of RGB for
nothing. Both passes are one loop, which adds up rows of bytes; for the pass along the rows a strip of the image is
turned by 90 degrees, so that the pixels that one weight applies to lie side by side.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

from workers.images.geometry import COLUMNS_FIRST_SINCE, Box, Size
from workers.images.pixels import Words, strips
from workers.models.spec import Filter

Bytes = npt.NDArray[np.uint8]
Starts = npt.NDArray[np.int64]
"""For each output pixel the first source pixel that counts."""
Weights = npt.NDArray[np.int32]
"""[outputs, taps]: what each of the source pixels from there on counts, `_ONE` in all; zeros at the end."""
Weighed = tuple[Starts, Weights, int, int]
"""Of one side: both, the first source pixel that is needed, from which starts are counted, and where they end."""

_PILLOW = int(PIL.__version__.partition(".")[0])

_LONGEST_SIDE = 65_536
"""Of the source. A strip of it, or a column, takes 16 MiB of memory then."""
_TALL = 100
"""Heights in a width: of what is taller Pillow did the columns first before its version 13."""

_KINDS: tuple[Filter, ...] = ("box", "bilinear", "hamming", "bicubic", "lanczos")
_BOX, _BILINEAR, _HAMMING, _BICUBIC, _LANCZOS = range(5)
_SUPPORTS = (0.5, 1.0, 1.0, 2.0, 3.0)
"""How far each reaches, in pixels of the output or of the source, whichever are larger."""
_HAMMING_MEAN, _HAMMING_SWING = float(np.float32(0.54)), float(np.float32(0.46))
"""Pillow has these two in single precision."""

_PLACES = 22
"""Binary places of a weight: 32, less 8 for a pixel, less 2 for weights below 0 and above 1."""
_ONE = 1 << _PLACES
_HALF = _ONE >> 1

_STRIP = 64
"""Rows of a strip."""
_TURNED = 16
"""Rows that are turned at a time. The processor cannot read ahead of many more."""
_LANES = 4 * _STRIP
"""Bytes that the innermost loop runs over. The length is fixed, which makes it a few vector instructions."""
_STEP = 4
"""Taps that it adds at once, so that the sums are read and written once for four products."""

F = TypeVar("F", bound=Callable[..., Any])


def _compiled(function: F) -> F:
    """To machine code, which runs without the interpreter lock, when it is first called.

    It is kept beside this file or in the user's cache folder. Where neither can be written, every process compiles.
    """
    try:
        compiled = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        compiled = numba.njit(nogil=True)(function)
    return cast("F", compiled)


def can_resample(kind: Filter, canvas: Size) -> bool:
    """Whether `resample` does it; Pillow does everything. `nearest` is another algorithm, and fast as it is."""
    return kind in _KINDS and max(canvas) <= _LONGEST_SIDE


def columns_first(canvas: Size, size: Size, pillow: int) -> bool:
    """Whether this major version of Pillow resizes the columns before the rows, which rounds otherwise."""
    (width, height), (to_width, to_height) = canvas, size
    if pillow >= COLUMNS_FIRST_SINCE:
        return height > to_height and height - to_height > 2 * (width - to_width)
    return height > to_height and height > _TALL * width


def resample(
    image: Image.Image,
    kind: Filter,
    size: Size,
    window: Box,
    *,
    canvas: Size,
    fill: tuple[int, int, int] = (0, 0, 0),
    alpha: bool = False,
) -> Bytes:
    """Put an image in the middle of a canvas, resize that, cut out a window. What ends up outside is not computed.

    Args:
        image: RGB, RGBA with an alpha that does not count, or RGBa.
        size: of the whole canvas after resizing.
        window: what is kept of it.
        canvas: at least as large as the image; an odd pixel is at the right and at the bottom.
        fill: colour of the canvas.
        alpha: give four channels and not three.

    Returns:
        [height, width, channels] of the window.
    """
    number = _KINDS.index(kind)
    left, top = ((outer - inner) // 2 for outer, inner in zip(canvas, image.size, strict=True))
    colour = int(np.array((*fill, 255), np.uint8).view(np.uint32)[0])
    rows = _weigh(canvas[1], size[1], window[1], window[3], number)
    columns = _weigh(canvas[0], size[0], window[0], window[2], number)
    passes = _columns_then_rows if columns_first(canvas, size, _PILLOW) else _rows_then_columns
    words = passes(image, left, top, colour, rows, columns)
    pixels = words.view(np.uint8).reshape(words.shape[0], -1, 4)[:, : window[2] - window[0]]
    return pixels if alpha else _without_fourth(pixels)


def _rows_then_columns(image: Image.Image, left: int, top: int, colour: int, rows: Weighed, columns: Weighed) -> Words:
    row_starts, row_weights, begin, end = rows
    # Rows above and below the image are the fill before the first pass, and so they are after it.
    narrow = np.full((end - begin, _padded(columns[0].size)), colour, np.uint32)
    for first, words in strips(image, begin - top, end - top):
        _along_rows(words, left, colour, *columns, narrow[first + top - begin :])
    out = np.empty((row_starts.size, narrow.shape[1]), np.uint32)
    _add_up(narrow.view(np.uint8), row_starts, row_weights, out.view(np.uint8))
    return out


def _columns_then_rows(image: Image.Image, left: int, top: int, colour: int, rows: Weighed, columns: Weighed) -> Words:
    row_starts, row_weights, begin, end = rows
    first, last = max(columns[2], left), min(columns[3], left + image.width)
    low = np.empty((row_starts.size, max(last - first, 0)), np.uint32)
    block = np.full((end - begin, _STRIP), colour, np.uint32)
    sums = np.empty((row_starts.size, _STRIP), np.uint32)
    for column in range(0, low.shape[1], _STRIP):
        at = first - left + column
        for row, words in strips(image.crop((at, 0, at + _STRIP, image.height)), begin - top, end - top):
            block[row + top - begin :][: words.shape[0]] = words
        _add_up(block.view(np.uint8), row_starts, row_weights, sums.view(np.uint8))
        low[:, column : column + _STRIP] = sums[:, : low.shape[1] - column]
    low.flags.writeable = False  # as are the words of an image, for which the pass is compiled
    out = np.empty((row_starts.size, _padded(columns[0].size)), np.uint32)
    _along_rows(low, first, colour, *columns, out)
    return out


def _padded(width: int) -> int:
    """To whole strips."""
    return -(-width // _STRIP) * _STRIP


def warm_up() -> None:
    """Compile, or read what was compiled before, so that the first image does not wait for it: seconds, or tenths."""
    resample(Image.new("RGB", (1, 1)), "box", (2, 2), (0, 0, 2, 2), canvas=(1, 1))


@_compiled
def _filter(kind: int, x: float) -> float:
    """The filter at x, in units of its support's."""
    support = _SUPPORTS[kind]
    if kind == _BOX:
        return 1.0 if -support < x <= support else 0.0
    if kind == _LANCZOS:
        return _sinc(x) * _sinc(x / support) if -support <= x < support else 0.0
    x = abs(x)
    if x >= support:
        return 0.0
    if kind == _BILINEAR:
        return 1.0 - x
    if kind == _HAMMING:
        return _sinc(x) * (_HAMMING_MEAN + _HAMMING_SWING * math.cos(x * math.pi))
    return _bicubic(x)


@_compiled
def _bicubic(x: float) -> float:
    """Keys' cubic for x from 0 to 2, with a = -0.5."""
    a = -0.5
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a


@_compiled
def _sinc(x: float) -> float:
    if x == 0.0:
        return 1.0
    x *= math.pi
    return math.sin(x) / x


@_compiled
def _weigh(source: int, target: int, begin: int, end: int, kind: int) -> Weighed:
    """Weights of the output pixels from `begin` to `end`, of one side.

    Returns:
        starts, counted from the first source pixel that any of them needs; weights; that pixel, and where they end.
    """
    scale = source / target
    stretch = max(scale, 1.0)
    shrink = 1.0 / stretch
    support = _SUPPORTS[kind] * stretch
    outputs = end - begin
    starts, counts = np.empty(outputs, np.int64), np.empty(outputs, np.int64)
    for output in range(outputs):
        centre = (output + begin + 0.5) * scale
        starts[output] = max(int(centre - support + 0.5), 0)
        counts[output] = min(int(centre + support + 0.5), source) - starts[output]
    taps = counts.max()
    exact = np.empty(taps)
    weights = np.zeros((outputs, -(-taps // _STEP) * _STEP), np.int32)
    for output in range(outputs):
        centre = (output + begin + 0.5) * scale
        total = 0.0
        for tap in range(counts[output]):
            exact[tap] = _filter(kind, (tap + starts[output] - centre + 0.5) * shrink)
            total += exact[tap]
        for tap in range(counts[output]):
            weight = exact[tap] / total * _ONE
            weights[output, tap] = int(weight + math.copysign(0.5, weight))
    first = starts[0]
    return starts - first, weights, first, starts[-1] + counts[-1]


@_compiled
def _along_rows(
    words: Words, left: int, fill: int, starts: Starts, weights: Weights, begin: int, end: int, out: Words
) -> None:
    """The first pass, over words [rows, width] whose first column is column `left` of the canvas."""
    rows, width = words.shape
    outputs = starts.size
    turned = np.full((end - begin, _STRIP), fill, np.uint32)
    sums = np.empty((outputs, _STRIP), np.uint32)
    first, last = max(begin, left), min(end, left + width)
    for top in range(0, rows, _STRIP):
        height = min(_STRIP, rows - top)
        for block in range(0, height, _TURNED):
            for column in range(first, last):
                for row in range(_TURNED):
                    source = min(top + block + row, rows - 1)
                    turned[column - begin, block + row] = words[source, column - left]
        _add_up(turned.view(np.uint8), starts, weights, sums.view(np.uint8))
        for row in range(height):
            for output in range(outputs):
                out[top + row, output] = sums[output, row]


@_compiled
def _without_fourth(pixels: Bytes) -> Bytes:
    """Three bytes a pixel of four. numpy takes ten times as long, since it copies them one by one."""
    height, width, _channels = pixels.shape
    out = np.empty((height, width, 3), np.uint8)
    for row in range(height):
        for column in range(width):
            out[row, column, 0] = pixels[row, column, 0]
            out[row, column, 1] = pixels[row, column, 1]
            out[row, column, 2] = pixels[row, column, 2]
    return out


@_compiled
def _add_up(rows: Bytes, starts: Starts, weights: Weights, out: Bytes) -> None:
    """`out[i] = sum over tap of weights[i, tap] * rows[starts[i] + tap]`, rounded half up and cut to 8 bits.

    Rows are a multiple of `_LANES` long.
    """
    last = rows.shape[0] - 1
    taps = weights.shape[1]
    sums = np.empty(_LANES, np.int32)
    for output in range(starts.size):
        for lane in range(0, rows.shape[1], _LANES):
            lanes = slice(lane, lane + _LANES)
            sums[:] = _HALF
            for tap in range(0, taps, _STEP):
                source = starts[output] + tap
                row_0, row_1 = rows[min(source, last), lanes], rows[min(source + 1, last), lanes]
                row_2, row_3 = rows[min(source + 2, last), lanes], rows[min(source + 3, last), lanes]
                weight_0, weight_1 = weights[output, tap], weights[output, tap + 1]
                weight_2, weight_3 = weights[output, tap + 2], weights[output, tap + 3]
                for i in range(_LANES):
                    sums[i] += row_0[i] * weight_0 + row_1[i] * weight_1 + row_2[i] * weight_2 + row_3[i] * weight_3
            done = out[output, lanes]
            for i in range(_LANES):
                done[i] = min(max(sums[i] >> _PLACES, 0), 255)
