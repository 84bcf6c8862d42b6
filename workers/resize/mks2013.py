"""Resizes with Magic Kernel Sharp 2013 in linear light, as Hydra 3.5 does with libvips.

The kernel is that of J. Costella, "The Magic Kernel" (2013, support 2.5), which libvips calls `mks2013`. Pixels are
converted from sRGB (IEC 61966-2-1) to 16-bit linear values, resized, and converted back. Columns are resized before
rows, with 16-bit values in between. libvips rounds the phases of its kernel to a table; its pixels differ by a level at
most, with few exceptions.
"""

import numpy as np
import numpy.typing as npt

from workers.resize.geometry import Size
from workers.resize.jit import compiled
from workers.resize.pixels import Bytes, Raster, Source, strips

Floats = npt.NDArray[np.float64]
Starts = npt.NDArray[np.int64]

_SUPPORT = 2.5
_WHITE = 65_535
_DARK = 0.0031308
"""Of linear light; sRGB is linear up to it."""


def resample_linear(image: Source, size: Size) -> Bytes:
    """Resize the first three channels of an image, whose alpha is ignored.

    Returns:
        uint8 [height, width, 3] of `size`, (width, height).
    """
    width, height = size
    starts, weights = _weigh(image.height, height)
    sums = np.zeros((height, image.width, 3), np.float64)
    for row, words in strips(image, 0, image.height):
        pixels = words.view(np.uint8).reshape(*words.shape, 4)
        _add_rows(pixels, row, _TO_LINEAR, starts, weights, sums)
    starts, weights = _weigh(image.width, width)
    out = np.empty((height, width, 3), np.uint8)
    _along_rows(sums, starts, weights, _TO_SRGB, out)
    return out


def warm_up() -> None:
    """Compile, or load from the cache, so that the first image need not wait."""
    resample_linear(Raster(np.zeros((1, 1), np.uint32)), (2, 2))


def _linear() -> Floats:
    """[256]: the linear value in 0..65535 of each 8-bit sRGB value."""
    value = np.arange(256) / 255
    linear: Floats = np.where(value <= _DARK * 12.92, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return np.rint(linear * _WHITE)


def _srgb() -> Bytes:
    """[65536]: the 8-bit sRGB value of each linear value."""
    linear = np.arange(_WHITE + 1) / _WHITE
    value: Floats = np.where(linear <= _DARK, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(value * 255).astype(np.uint8)


_TO_LINEAR, _TO_SRGB = _linear(), _srgb()


@compiled
def _kernel(x: float) -> float:
    x = abs(x)
    if x < 0.5:  # noqa: PLR2004 - the pieces of the kernel
        return 17 / 16 - 7 / 4 * x * x
    if x < 1.5:  # noqa: PLR2004
        return (4 * x * x - 11 * x + 7) / 4
    if x < _SUPPORT:
        return -((x - _SUPPORT) ** 2) / 8
    return 0.0


@compiled
def _weigh(source: int, target: int) -> tuple[Starts, Floats]:
    """Of each output pixel, the first source pixel and the weights from there on. Pixels at the edge are repeated."""
    scale = source / target
    stretch = max(scale, 1.0)
    taps = min(2 * int(_SUPPORT * stretch) + 2, source)
    starts, weights = np.zeros(target, np.int64), np.zeros((target, taps), np.float64)
    for output in range(target):
        if source == target:  # an axis whose length stays is not filtered
            starts[output] = min(output, source - taps)
            weights[output, output - starts[output]] = 1.0
            continue
        centre = (output + 0.5) * scale - 0.5
        first, last = int(np.ceil(centre - _SUPPORT * stretch)), int(np.floor(centre + _SUPPORT * stretch))
        starts[output] = min(max(first, 0), source - taps)
        total = 0.0
        for at in range(first, last + 1):
            total += _kernel((at - centre) / stretch)
        for at in range(first, last + 1):
            place = min(max(at, 0), source - 1) - starts[output]
            weights[output, place] += _kernel((at - centre) / stretch) / total
    return starts, weights


@compiled
def _add_rows(pixels: Bytes, first: int, to_linear: Floats, starts: Starts, weights: Floats, sums: Floats) -> None:
    """Add some source rows to all output rows that they have a weight in. Each is converted to linear light once."""
    rows, width, _channels = pixels.shape
    taps = weights.shape[1]
    linear = np.empty((width, 3), np.float64)
    begin = 0
    for row in range(rows):
        source = first + row
        for column in range(width):
            for channel in range(3):
                linear[column, channel] = to_linear[pixels[row, column, channel]]
        while begin < starts.size and starts[begin] + taps <= source:
            begin += 1
        output = begin
        while output < starts.size and starts[output] <= source:
            weight = weights[output, source - starts[output]]
            if weight != 0.0:
                for column in range(width):
                    for channel in range(3):
                        sums[output, column, channel] += weight * linear[column, channel]
            output += 1


@compiled
def _along_rows(sums: Floats, starts: Starts, weights: Floats, to_srgb: Bytes, out: Bytes) -> None:
    """Round the sums to 16 bits, resize along the rows, and convert back."""
    height, width, _channels = sums.shape
    taps = weights.shape[1]
    line = np.empty((width, 3), np.float64)
    for row in range(height):
        for column in range(width):
            for channel in range(3):
                line[column, channel] = min(max(np.rint(sums[row, column, channel]), 0), 65_535)
        for output in range(starts.size):
            red = green = blue = np.float64(0)
            for tap in range(taps):
                weight, at = weights[output, tap], starts[output] + tap
                red += weight * line[at, 0]
                green += weight * line[at, 1]
                blue += weight * line[at, 2]
            out[row, output, 0] = to_srgb[int(min(max(np.rint(red), 0), 65_535))]
            out[row, output, 1] = to_srgb[int(min(max(np.rint(green), 0), 65_535))]
            out[row, output, 2] = to_srgb[int(min(max(np.rint(blue), 0), 65_535))]
