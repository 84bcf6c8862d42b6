"""Resizes with Pillow's arithmetic, bit for bit, in a fraction of its time: compiled and vectorised.

The arithmetic is that of Pillow for 8-bit images (`ImagingResample` in src/libImaging/Resample.c). Weights are float64,
scaled to the source if the image shrinks, normalised to a sum of 1, and rounded to 22 fractional bits. One pass resizes
along the rows, the other along the columns, with 8-bit pixels in between. Integer sums do not depend on the order of
addition. Which pass is first depends on the shape and on the installed Pillow: 12 and 13 differ for tall images.

A pixel is a word of 32 bits, as in Pillow's RGB and RGBA. Its four bytes are treated alike; the fourth of RGB is
computed for nothing. Both passes use one loop, which adds up rows of bytes. For the pass along the rows, a strip of the
image is transposed, so that the pixels with the same weight are adjacent.
"""

import math

import numpy as np
import numpy.typing as npt
import PIL

from workers.models.spec import Filter
from workers.resize.geometry import COLUMNS_FIRST_SINCE, Box, Size
from workers.resize.jit import compiled
from workers.resize.pixels import Bytes, Raster, Source, Words, cropped, strips

Starts = npt.NDArray[np.int64]
"""For each output pixel, the first source pixel with a weight."""
Weights = npt.NDArray[np.int32]
"""[outputs, taps]: weights of the source pixels from there on, with the sum `_ONE`; padded with zeros."""
Weighed = tuple[Starts, Weights, int, int]
"""For one side: starts, relative to the first source pixel needed; weights; that pixel; and the end of those needed."""

_PILLOW = int(PIL.__version__.partition(".")[0])

_LONGEST_SIDE = 65_536
"""Limit of the source. A strip of it, or a column, then takes 16 MiB of memory."""
_TALL = 100
"""Before version 13, Pillow resized columns first if the height was more than so many widths."""

_KINDS: tuple[Filter, ...] = ("box", "bilinear", "hamming", "bicubic", "lanczos")
_BOX, _BILINEAR, _HAMMING, _BICUBIC, _LANCZOS = range(5)
_SUPPORTS = (0.5, 1.0, 1.0, 2.0, 3.0)
"""Support of each filter, in pixels of the output or of the source, whichever are larger."""
_HAMMING_MEAN, _HAMMING_SWING = float(np.float32(0.54)), float(np.float32(0.46))
"""Pillow stores these two in single precision."""

_PLACES = 22
"""Fractional bits of a weight: 32, less 8 for a pixel, less 2 for weights below 0 and above 1."""
_ONE = 1 << _PLACES
_HALF = _ONE >> 1

_STRIP = 64
"""Rows of a strip."""
_TURNED = 16
"""Rows transposed at a time. The processor does not prefetch many more."""
_LANES = 4 * _STRIP
"""Bytes of the innermost loop. Its fixed length lets it compile to a few vector instructions."""
_STEP = 4
"""Taps added at once, so that a sum is read and written once for four products."""


def can_resample(kind: Filter, canvas: Size) -> bool:
    """Whether `resample` supports a filter and a size. Callers use Pillow for others; it is fast for `nearest`."""
    return kind in _KINDS and max(canvas) <= _LONGEST_SIDE


def columns_first(canvas: Size, size: Size, pillow: int) -> bool:
    """Whether this major version of Pillow resizes columns before rows, which rounds differently."""
    (width, height), (to_width, to_height) = canvas, size
    if pillow >= COLUMNS_FIRST_SINCE:
        return height > to_height and height - to_height > 2 * (width - to_width)
    return height > to_height and height > _TALL * width


def resample(
    image: Source,
    kind: Filter,
    size: Size,
    window: Box,
    *,
    canvas: Size,
    fill: tuple[int, int, int] = (0, 0, 0),
    alpha: bool = False,
) -> Bytes:
    """Centre an image on a canvas, resize the canvas, and crop. Pixels outside of the crop are not computed.

    Args:
        image: RGB, RGBA whose alpha is ignored, or RGBa.
        kind: filter, one that `can_resample` accepts.
        size: of the whole canvas after resizing.
        window: crop of the resized canvas.
        canvas: at least as large as the image; an odd pixel of padding is at the right and at the bottom.
        fill: colour of the canvas.
        alpha: return four channels instead of three.

    Returns:
        uint8 [height, width, channels] of the crop.
    """
    number = _KINDS.index(kind)
    left, top = ((outer - inner) // 2 for outer, inner in zip(canvas, image.size, strict=True))
    colour = int(np.array((*fill, 255), np.uint8).view(np.uint32)[0])
    rows = _weigh(canvas[1], size[1], window[1], window[3], number)
    columns = _weigh(canvas[0], size[0], window[0], window[2], number)
    passes = _columns_then_rows if columns_first(canvas, size, _PILLOW) else _rows_then_columns
    words = passes(image, left, top, colour, rows, columns)
    pixels = words.view(np.uint8).reshape(words.shape[0], -1, 4)[:, : window[2] - window[0]]
    return pixels if alpha else without_fourth(pixels)


def _rows_then_columns(image: Source, left: int, top: int, colour: int, rows: Weighed, columns: Weighed) -> Words:
    row_starts, row_weights, begin, end = rows
    # Rows above and below the image have the colour of the fill before the first pass, and also after it.
    narrow = np.full((end - begin, _padded(columns[0].size)), colour, np.uint32)
    for first, words in strips(image, begin - top, end - top):
        _along_rows(words, left, colour, *columns, narrow[first + top - begin :])
    out = np.empty((row_starts.size, narrow.shape[1]), np.uint32)
    _add_up(narrow.view(np.uint8), row_starts, row_weights, out.view(np.uint8))
    return out


def _columns_then_rows(image: Source, left: int, top: int, colour: int, rows: Weighed, columns: Weighed) -> Words:
    row_starts, row_weights, begin, end = rows
    first, last = max(columns[2], left), min(columns[3], left + image.width)
    low = np.empty((row_starts.size, max(last - first, 0)), np.uint32)
    block = np.full((end - begin, _STRIP), colour, np.uint32)
    sums = np.empty((row_starts.size, _STRIP), np.uint32)
    for column in range(0, low.shape[1], _STRIP):
        at = first - left + column
        for row, words in strips(cropped(image, at, at + _STRIP), begin - top, end - top):
            block[row + top - begin :][: words.shape[0], : words.shape[1]] = words
        _add_up(block.view(np.uint8), row_starts, row_weights, sums.view(np.uint8))
        low[:, column : column + _STRIP] = sums[:, : low.shape[1] - column]
    low.flags.writeable = False  # like the words of an image: the pass is compiled for read-only arrays
    out = np.empty((row_starts.size, _padded(columns[0].size)), np.uint32)
    _along_rows(low, first, colour, *columns, out)
    return out


def _padded(width: int) -> int:
    """The width rounded up to whole strips."""
    return -(-width // _STRIP) * _STRIP


def warm_up() -> None:
    """Compile, or load from the cache, so that the first image need not wait: seconds, or tenths of a second."""
    resample(Raster(np.zeros((1, 1), np.uint32)), "box", (2, 2), (0, 0, 2, 2), canvas=(1, 1))


@compiled
def _filter(kind: int, x: float) -> float:
    """Value of a filter at x, in units of its support."""
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


@compiled
def _bicubic(x: float) -> float:
    """Keys' cubic convolution for x from 0 to 2, with a = -0.5 (IEEE Trans. ASSP 29, 1981)."""
    a = -0.5
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a


@compiled
def _sinc(x: float) -> float:
    if x == 0.0:
        return 1.0
    x *= math.pi
    return math.sin(x) / x


@compiled
def _weigh(source: int, target: int, begin: int, end: int, kind: int) -> Weighed:
    """Weights of the output pixels from `begin` to `end` of one side, as `precompute_coeffs` of Pillow's Resample.c.

    Returns:
        See `Weighed`.
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


@compiled
def _along_rows(
    words: Words, left: int, fill: int, starts: Starts, weights: Weights, begin: int, end: int, out: Words
) -> None:
    """Resize along the rows: words [rows, width], whose first column is column `left` of the canvas, into `out`."""
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


@compiled
def without_fourth(pixels: Bytes) -> Bytes:
    """[height, width, 4] without the fourth channel. numpy takes ten times as long, since it copies byte by byte."""
    height, width, _channels = pixels.shape
    out = np.empty((height, width, 3), np.uint8)
    for row in range(height):
        for column in range(width):
            out[row, column, 0] = pixels[row, column, 0]
            out[row, column, 1] = pixels[row, column, 1]
            out[row, column, 2] = pixels[row, column, 2]
    return out


@compiled
def _add_up(rows: Bytes, starts: Starts, weights: Weights, out: Bytes) -> None:
    """`out[i] = sum over tap of weights[i, tap] * rows[starts[i] + tap]`, rounded half up and clipped to 8 bits.

    The length of a row is a multiple of `_LANES`.
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
