"""So that a small file costs little: what Pillow does to a stranger's file again and again is counted, and ends.

Each of these was a file of a megabyte that took gigabytes, or minutes, and that Pillow read without complaint.
"""

import io
import re
from collections.abc import Iterator

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

_AVIF = re.compile(rb"....ftypavi[fs]", re.DOTALL)
_EXIF_ITEM = re.compile(rb"(infe[\2\3].{7,9}?)Exif", re.DOTALL)
"""The entry of the item in an AVIF: version, flags, number, protection, type."""
_JPEG = b"\xff\xd8\xff"
_SEGMENTS = (b"Exif\0\0", b"MPF\0", b"JFIF", b"Adobe", b"Photoshop 3.0\0")
"""What begins the segments of a JPEG that Pillow takes apart, and that say nothing about its pixels: EXIF and the list
of pictures behind it, which hold tags as a TIFF does, the resolution, the program, captions. libjpeg reads its own."""
_PROFILE, _PROFILE_HEAD = b"ICC_PROFILE\0", 14
"""What begins a part of a profile, and how many bytes lie before its content. Pillow trusts that there are as many."""


class ReadTooOftenError(Exception):
    """No OSError, which Pillow takes for the end of a directory and goes on."""

    def __init__(self) -> None:
        super().__init__("it makes its reader go over it again and again, or in tiny steps")


class RationedFile(io.BytesIO):
    """Of the reads and the bytes that a decoder takes from a file, there are so many and no more.

    A TIFF has up to 65,535 tags, each of which may point to the same megabyte, and Pillow keeps every one. A comment
    of a GIF grows byte by byte, copied each time. And of a JPEG or an AVIF Pillow reads all EXIF, and of a JPEG the
    list of the pictures behind it, whose tags are those of a TIFF, though nobody asks: here it finds none, nor what
    else would fail a JPEG by its length.

    Raises:
        ReadTooOftenError: they are used up.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(_EXIF_ITEM.sub(rb"\1exif", data) if _AVIF.match(data) else data)
        self._size = len(data)
        self._reads = _READS
        self._bytes = _TIMES * self._size + _READS
        self._in_header = data.startswith(_JPEG)

    def allow_pixels(self) -> None:
        """The header is read; of what follows some formats read every byte by itself."""
        self._reads += self._size
        self._in_header = False

    def read(self, size: int | None = -1, /) -> bytes:
        read = self._counted(super().read(size))
        # Pillow reads a segment in one go, and knows it by its first letters.
        return b"-" + read[1:] if self._in_header and _is_hidden(read) else read

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._counted(super().readline(size))

    def _counted(self, read: bytes) -> bytes:
        self._reads -= 1
        self._bytes -= len(read)
        if self._reads < 0 or self._bytes < 0:
            raise ReadTooOftenError
        return read


def _is_hidden(segment: bytes) -> bool:
    return segment.startswith(_SEGMENTS) or (segment.startswith(_PROFILE) and len(segment) < _PROFILE_HEAD)


def has_too_many_scans(jpeg: bytes) -> bool:
    """Whether libjpeg would go over the pixels of this JPEG more than a hundred times.

    It looks for more scans when the picture is progressive, or the first holds some of its colours only; and so does
    this, which reads on only then.
    """
    scans, progressive, components = 0, False, b""
    for marker, content in segments(jpeg):
        if marker in _FRAMES:
            progressive, components = marker in _PROGRESSIVE, content[_AT_COMPONENTS]
        elif marker == _SCAN:
            scans += 1
            if scans > _SCANS:
                return True
            if scans == 1 and not progressive and content[:1] == components:
                return False
    return False


def segments(jpeg: bytes) -> Iterator[tuple[int, bytes]]:
    """Up to the end of the picture: marker, and the first six bytes of the content."""
    at = 0
    while found := _MARKER.search(jpeg, at):
        at, marker = found.end(), jpeg[found.end() - 1]
        if marker == _END:
            return
        yield marker, jpeg[at + 2 : at + 8]
        at += int.from_bytes(jpeg[at : at + 2], "big")
