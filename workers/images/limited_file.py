"""So that a small file costs little: what Pillow does to a stranger's file again and again is counted, and ends.

Each of these was a file of a megabyte that took gigabytes, or minutes, and that Pillow read without complaint.
"""

import io
import re

_READS = 20_000
"""Of a header. The most that photographs need is some hundred: a few for each segment, chunk or tag."""
_TIMES = 4
"""A file is read over. Pillow reads twice what it gives to a library whole."""

_AVIF = re.compile(rb"....ftypavi[fs]", re.DOTALL)
_EXIF_ITEM = re.compile(rb"(infe[\2\3].{7,9}?)Exif", re.DOTALL)
"""The entry of the item in an AVIF: version, flags, number, protection, type."""
_JPEG = b"\xff\xd8\xff"
_SEGMENTS = (b"Exif\0\0", b"MPF\0", b"JFIF", b"Adobe", b"Photoshop 3.0\0")
"""What begins the segments of a JPEG that Pillow takes apart, and that say nothing about its pixels: EXIF and the list
of pictures behind it, which hold tags as a TIFF does, the resolution, the program, captions. libjpeg reads its own."""
_PROFILE, _PROFILE_HEAD = b"ICC_PROFILE\0", 14
"""What begins a part of a profile, and how many bytes lie before its content. Pillow trusts that there are as many."""


class ReadLimitError(Exception):
    """No OSError, which Pillow takes for the end of a directory and goes on."""

    def __init__(self) -> None:
        super().__init__("it makes its reader go over it again and again, or in tiny steps")


class LimitedFile(io.BytesIO):
    """Of the reads and the bytes that a decoder takes from a file, there are so many and no more.

    A TIFF has up to 65,535 tags, each of which may point to the same megabyte, and Pillow keeps every one. A comment
    of a GIF grows byte by byte, copied each time. And of a JPEG or an AVIF Pillow reads all EXIF, and of a JPEG the
    list of the pictures behind it, whose tags are those of a TIFF, though nobody asks: here it finds none, nor what
    else would fail a JPEG by its length.

    Raises:
        ReadLimitError: they are used up.
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
            raise ReadLimitError
        return read


def _is_hidden(segment: bytes) -> bool:
    return segment.startswith(_SEGMENTS) or (segment.startswith(_PROFILE) and len(segment) < _PROFILE_HEAD)
