"""A file object that limits the reads of a decoder, so that a small untrusted file cannot take gigabytes or minutes.

Each limit is for a known file of about a megabyte that did, and that Pillow read without an error.
"""

import io
import re

_READS = 20_000
"""Reads of a header. Photographs need up to some hundred: a few for each segment, chunk or tag."""
_TIMES = 4
"""How many times its size may be read. Pillow reads a file twice before it passes it whole to a library."""

_AVIF = re.compile(rb"....ftypavi[fs]", re.DOTALL)
_EXIF_ITEM = re.compile(rb"(infe[\2\3].{7,9}?)Exif", re.DOTALL)
"""Entry of the EXIF item in an AVIF: version, flags, number, protection, type."""
_JPEG = b"\xff\xd8\xff"
_SEGMENTS = (b"Exif\0\0", b"MPF\0", b"JFIF", b"Adobe", b"Photoshop 3.0\0")
"""First bytes of JPEG segments that Pillow parses and that do not affect pixels: EXIF and the list of further pictures
(MPF), both with tags as in a TIFF, resolution, program, captions. libjpeg reads the segments by itself."""
_PROFILE, _PROFILE_HEAD = b"ICC_PROFILE\0", 14
"""First bytes of a part of an ICC profile, and the length of its header, which Pillow does not check."""


class ReadLimitError(Exception):
    """Not an OSError: Pillow takes one for the end of a TIFF directory and continues."""

    def __init__(self) -> None:
        super().__init__("it makes its decoder read it many times, or in tiny steps")


class LimitedFile(io.BytesIO):
    """A file in memory that limits the number of reads and of bytes read.

    A TIFF has up to 65,535 tags, each of which may point to the same megabyte, and Pillow keeps all of them. A comment
    of a GIF grows byte by byte, and is copied each time. Of a JPEG and an AVIF Pillow always reads all EXIF, and of a
    JPEG the list of further pictures, with tags as in a TIFF. These segments are hidden from it here, and so are those
    whose length would make it refuse a JPEG.

    Reading raises:
        ReadLimitError: a limit is exceeded.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(_EXIF_ITEM.sub(rb"\1exif", data) if _AVIF.match(data) else data)
        self._size = len(data)
        self._reads = _READS
        self._bytes = _TIMES * self._size + _READS
        self._in_header = data.startswith(_JPEG)

    def allow_pixels(self) -> None:
        """Allow one more read for each byte, once the header is read: some formats read pixels byte by byte."""
        self._reads += self._size
        self._in_header = False

    def read(self, size: int | None = -1, /) -> bytes:
        read = self._counted(super().read(size))
        # Pillow reads a segment at once, and recognises it by its first bytes.
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
