"""The segments of a JPEG, and how many scans it has, without decoding it."""

import re
from collections.abc import Iterator

_SCANS = 100
"""Of a JPEG. Programs write up to about 15; libjpeg goes over all pixels for each, whatever is in it."""
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
"""Of a segment with a length: all but what is stuffed, fills, restarts, or starts a picture."""
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_SCAN, _END = 0xDA, 0xD9
_AT_COMPONENTS = slice(5, 6)
"""In a frame: behind the depth, height and width."""


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
