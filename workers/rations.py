"""So that a small file costs little: what Pillow does to a stranger's file again and again is counted, and ends.

Each of these was a file of a megabyte that took gigabytes, or minutes, and that Pillow read without complaint.
"""

import io
import re
import struct

_READS = 20_000
"""Of a header. The most that photographs need is some hundred: a few for each segment, chunk or tag."""
_TIMES = 4
"""A file is read over. Pillow reads twice what it gives to a library whole."""

_SCANS = 100
"""Of a JPEG. Programs write up to about 15; libjpeg goes over all pixels for each, whatever is in it."""
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
"""Of a segment with a length: all but what is stuffed, fills, restarts, or starts a picture."""
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_SCAN, _END = 0xDA, 0xD9
_AT_COMPONENTS = slice(5, 6)
"""In a frame: behind the depth, height and width."""

_NUMBERS = 1_000_000
"""In a tag of a TIFF. The largest image has 700,000 offsets, should its tiles be of 16 x 16."""
_BYTES_AND_TEXT = {1, 2, 6, 7}
"""Types of tags that stay bytes; what others hold becomes objects of Python."""

_AVIF = re.compile(rb"....ftypavi[fs]", re.DOTALL)
_EXIF_ITEM = re.compile(rb"(infe[\2\3].{7,9}?)Exif", re.DOTALL)
"""The entry of the item in an AVIF: version, flags, number, protection, type."""
_DIRECTORIES = (b"Exif\0\0", b"MPF\0")
"""What begins the segments of a JPEG that hold tags as a TIFF does: EXIF, and the list of pictures behind it."""


class ReadTooOftenError(Exception):
    """No OSError, which Pillow takes for the end of a directory and goes on."""

    def __init__(self) -> None:
        super().__init__("it makes its reader go over it again and again, or in tiny steps")


class RationedFile(io.BytesIO):
    """Of the reads and the bytes that a decoder takes from a file, there are so many and no more.

    A TIFF has up to 65,535 tags, each of which may point to the same megabyte, and Pillow keeps every one. A comment
    of a GIF grows byte by byte, copied each time. And of a JPEG or an AVIF Pillow reads all EXIF, and of a JPEG the
    list of the pictures behind it, whose tags are those of a TIFF, though nobody asks: here it finds none.

    Raises:
        ReadTooOftenError: they are used up.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(_EXIF_ITEM.sub(rb"\1exif", data) if _AVIF.match(data) else data)
        self._size = len(data)
        self._reads = _READS
        self._bytes = _TIMES * self._size + _READS
        self._in_header = True

    def allow_pixels(self) -> None:
        """The header is read; of what follows some formats read every byte by itself."""
        self._reads += self._size
        self._in_header = False

    def read(self, size: int | None = -1, /) -> bytes:
        read = self._counted(super().read(size))
        # Pillow reads a segment in one go, and knows it by its first letters.
        return b"-" + read[1:] if self._in_header and read.startswith(_DIRECTORIES) else read

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._counted(super().readline(size))

    def _counted(self, read: bytes) -> bytes:
        self._reads -= 1
        self._bytes -= len(read)
        if self._reads < 0 or self._bytes < 0:
            raise ReadTooOftenError
        return read


def has_too_many_scans(jpeg: bytes) -> bool:
    """Whether libjpeg would go over the pixels of this JPEG more than a hundred times.

    It looks for more scans when the picture is progressive, or the first holds some of its colours only; and so does
    this, which reads on only then.
    """
    at = scans = 0
    progressive, components = False, b""
    while scans <= _SCANS and (found := _MARKER.search(jpeg, at)):
        at, marker = found.end(), jpeg[found.end() - 1]
        if marker == _END:
            break
        content = jpeg[at + 2 : at + 8]
        if marker in _FRAMES:
            progressive, components = marker in _PROGRESSIVE, content[_AT_COMPONENTS]
        elif marker == _SCAN:
            scans += 1
            if scans == 1 and not progressive and content[:1] == components:
                break
        at += int.from_bytes(jpeg[at : at + 2], "big")
    return scans > _SCANS


def has_too_many_numbers(tiff: bytes) -> bool:
    """Whether this is a TIFF and a tag in its first directory holds more than a million numbers.

    Pillow makes an object of each, of fractions at the price of five microseconds and 250 bytes.
    """
    if not tiff.startswith((b"II", b"MM")):
        return False
    order = "<" if tiff.startswith(b"II") else ">"
    head, many, entry = ("8xQ", "Q", "HHQ8x") if tiff[2:4] in (b"+\0", b"\0+") else ("4xI", "H", "HHI4x")
    try:
        (at,) = struct.unpack_from(order + head, tiff)
        (entries,) = struct.unpack_from(order + many, tiff, at)
        begin, step = at + struct.calcsize(order + many), struct.calcsize(order + entry)
        table = tiff[begin : begin + step * min(entries, _READS)]
        found = struct.iter_unpack(order + entry, table[: len(table) // step * step])
        return any(kind not in _BYTES_AND_TEXT and count > _NUMBERS for _tag, kind, count in found)
    except (struct.error, OverflowError):
        return False  # it is cut, and Pillow will say so
