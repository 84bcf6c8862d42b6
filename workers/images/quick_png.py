"""Decodes a sound PNG of 8-bit RGB or RGBA to the pixels that Pillow gives, in a third of its time.

Most of Pillow's time goes into undoing the filters of the rows, byte by byte. Here that loop is compiled, and ISA-L
inflates. Only a file without any defect is decoded; Pillow decides on every other, so that its answer stays the same.
"""

import zlib
from collections.abc import Iterator

import numpy as np
from isal import isal_zlib
from isal.igzip_lib import IsalError

from workers.images.metadata import CHUNKS_OF_PIXELS
from workers.resize.geometry import Size
from workers.resize.jit import compiled
from workers.resize.pixels import Bytes, Raster, Words

_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_CHANNELS = {bytes((8, colour, 0, 0, 0)): channels for colour, channels in ((2, 3), (6, 4))}
"""Of the last five bytes of the header: 8 bits; RGB or RGBA; the only compression and filters; not interlaced."""
_CHUNKS = 10_000
"""Limit of chunks. Pillow refuses a file with several times as many in front of its pixels."""
_PIECE = 1 << 16
"""Bytes that are inflated at once, so that a row is still in the cache of the processor when its filter is undone."""

_SUMS = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (255, 255, 1))
"""Of the filters None, Sub, Up and Average: masks of the byte at the left and of that above, and bits of a shift."""
_PAETH = 4
_COLOURS = 3


def warm_up() -> None:
    """Compile, or load from the cache, so that the first image need not wait."""
    _unfilter(np.frombuffer(bytes(5), np.uint8).reshape(1, 5), 4, 0, np.empty((1, 1), np.uint32))


def size_of(png: bytes) -> Size | None:
    """Width and height, or None if `decoded` cannot decode this file."""
    header = png[12:29]
    if not png.startswith(_START) or png[24:29] not in _CHANNELS or zlib.crc32(header) != _number(png, 29):
        return None
    width, height = _number(png, 16), _number(png, 20)
    return (width, height) if width and height else None


def decoded(png: bytes, size: Size) -> Raster | None:
    """The pixels of a file with this size, or None if anything about it is unusual.

    Raises:
        MemoryError: for the pixels, or a compressed row.
    """
    width, height = size
    channels = _CHANNELS[png[24:29]]
    stride = 1 + width * channels
    left = height * stride
    out = np.empty((height, width), np.uint32)
    inflater, rest, row = isal_zlib.decompressobj(), b"", 0
    try:
        for piece in _pieces(png):
            raw = inflater.decompress(piece, left + 1)
            left -= len(raw)
            if left < 0:
                return None
            raw = rest + raw if rest else raw
            rows = len(raw) // stride
            if rows:
                filtered = np.frombuffer(raw, np.uint8, rows * stride).reshape(rows, stride)
                if not _unfilter(filtered, channels, row, out):
                    return None
                row += rows
            rest = raw[rows * stride :]
    except (IsalError, _UnusualError):  # type: ignore[misc]  # declared as an instance
        return None
    # At its end the inflater has compared the checksum of all bytes.
    sound = inflater.eof and not left and not inflater.unused_data
    return Raster(out, "RGBA" if channels == len("RGBA") else "RGB") if sound else None


class _UnusualError(Exception):
    """The chunks of a PNG are not the usual ones in the usual order."""


def _pieces(png: bytes) -> Iterator[memoryview]:
    """Pieces of the compressed pixels: the contents of all IDAT chunks, which are adjacent.

    Other chunks may be metadata, which `workers.images.metadata` hides from Pillow or Pillow can read.
    """
    view, at, kinds = memoryview(png), 33, [b"IHDR"]
    while len(kinds) < _CHUNKS:
        length, kind = _number(png, at), png[at + 4 : at + 8]
        begin, end = at + 8, at + 8 + length
        if end + 4 > len(png):
            raise _UnusualError
        if kind == b"IDAT":
            if kinds[-1] != kind and kind in kinds:
                raise _UnusualError
            for first in range(begin, end, _PIECE):
                yield view[first : min(first + _PIECE, end)]
        elif kind == b"IEND":
            return
        elif not (kind.isalpha() and kind[:1].islower()) or kind in CHUNKS_OF_PIXELS:
            raise _UnusualError
        kinds.append(kind)
        at = end + 4
    raise _UnusualError


def _number(png: bytes, at: int) -> int:
    return int.from_bytes(png[at : at + 4], "big")


@compiled
def _unfilter(rows: Bytes, channels: int, first: int, out: Words) -> bool:
    """Undo the filters of some rows (PNG specification, section 9).

    Args:
        rows: [rows, 1 + width * channels]: the filter of each row, and its filtered bytes.
        channels: 3 or 4.
        first: number of the first row.
        out: [height, width]; rows before the first are complete. The fourth byte of RGB gets no value.

    Returns:
        Whether all filters exist.
    """
    above = out[first - 1].view(np.uint8) if first else np.zeros(4 * out.shape[1], np.uint8)
    for row in range(rows.shape[0]):
        kind, source, target = rows[row, 0], rows[row, 1:], out[first + row].view(np.uint8)
        if kind > _PAETH:
            return False
        if kind == _PAETH:
            _undo_paeth(source, above, target, channels)
        else:
            _undo_sum(source, above, target, channels, *_SUMS[kind])
        above = target
    return True


@compiled
def _undo_sum(source: Bytes, above: Bytes, target: Bytes, channels: int, of_left: int, of_up: int, halved: int) -> None:
    """Add to each byte the sum of its neighbours at the left and above, as far as the masks have them, or its half."""
    red = green = blue = 0
    for column in range(target.size // 4):
        at, to = channels * column, 4 * column
        red = ((((red & of_left) + (above[to] & of_up)) >> halved) + source[at]) & 255
        green = ((((green & of_left) + (above[to + 1] & of_up)) >> halved) + source[at + 1]) & 255
        blue = ((((blue & of_left) + (above[to + 2] & of_up)) >> halved) + source[at + 2]) & 255
        target[to], target[to + 1], target[to + 2] = red, green, blue
    if channels > _COLOURS:
        alpha = 0
        for to in range(_COLOURS, target.size, 4):
            alpha = ((((alpha & of_left) + (above[to] & of_up)) >> halved) + source[to]) & 255
            target[to] = alpha


@compiled
def _undo_paeth(source: Bytes, above: Bytes, target: Bytes, channels: int) -> None:
    """Add to each byte the neighbour that Paeth's function chooses.

    Three channels at a time are the fastest: they do not wait for each other, and all values fit into registers.
    """
    red = green = blue = corner_red = corner_green = corner_blue = 0
    for column in range(target.size // 4):
        at, to = channels * column, 4 * column
        up_red, up_green, up_blue = int(above[to]), int(above[to + 1]), int(above[to + 2])
        red = (_paeth(red, up_red, corner_red) + source[at]) & 255
        green = (_paeth(green, up_green, corner_green) + source[at + 1]) & 255
        blue = (_paeth(blue, up_blue, corner_blue) + source[at + 2]) & 255
        target[to], target[to + 1], target[to + 2] = red, green, blue
        corner_red, corner_green, corner_blue = up_red, up_green, up_blue
    if channels > _COLOURS:
        alpha = corner = 0
        for to in range(_COLOURS, target.size, 4):
            up = int(above[to])
            alpha = (_paeth(alpha, up, corner) + source[to]) & 255
            target[to] = alpha
            corner = up


@compiled
def _paeth(left: int, up: int, corner: int) -> int:
    """The neighbour nearest to left + up - corner. Without a branch, whose result a processor could not foresee."""
    from_left, from_up = abs(up - corner), abs(left - corner)
    from_corner = abs(left + up - 2 * corner)
    other = up if from_up <= from_corner else corner
    return left if (from_left <= from_up) & (from_left <= from_corner) else other
