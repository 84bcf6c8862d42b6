"""Walks the segments of a JPEG (ITU-T T.81, annex B), and counts its scans, without decoding it."""

import re
from collections.abc import Iterator

_SCANS = 100
"""Limit of scans. Programs write up to about 15; libjpeg processes all pixels for each, even if it is empty."""
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
"""Marker of a segment with a length: not byte stuffing, fill bytes, RSTn or SOI."""
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_SCAN, _END = 0xDA, 0xD9
_AT_COMPONENTS = slice(5, 6)
"""Number of components in a frame header, after precision, height and width."""


def has_too_many_scans(jpeg: bytes) -> bool:
    """Whether libjpeg would process the pixels of this JPEG more than `_SCANS` times.

    libjpeg looks for more scans only if the image is progressive, or if the first scan has not all components. So does
    this function.
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
    """Marker and first six bytes of each segment, up to the end of the image (EOI)."""
    at = 0
    while found := _MARKER.search(jpeg, at):
        at, marker = found.end(), jpeg[found.end() - 1]
        if marker == _END:
            return
        yield marker, jpeg[at + 2 : at + 8]
        at += int.from_bytes(jpeg[at : at + 2], "big")


def application_segments(jpeg: bytes, kind: int) -> Iterator[bytes]:
    """Contents of the application segments of a kind (0xE0 to 0xEF), up to the first scan."""
    at = 0
    while found := _MARKER.search(jpeg, at):
        at, marker = found.end(), jpeg[found.end() - 1]
        if marker in {_SCAN, _END}:
            return
        length = int.from_bytes(jpeg[at : at + 2], "big")
        if marker == kind:
            yield jpeg[at + 2 : at + length]
        at += length
