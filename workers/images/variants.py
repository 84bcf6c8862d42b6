"""Kinds of valid files that Pillow reports as broken, because its libraries do not tell the difference."""

from workers.images.jpeg_segments import segments

_NOT_DECODED = {0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}
"""Frame markers of JPEGs that libjpeg does not decode: hierarchical, lossless with arithmetic coding, JPEG-LS."""
_OF_IPHONES = b"\x89PNG\r\n\x1a\n\0\0\0\4CgBI"


def unread_variant(data: bytes) -> str | None:
    """Which of these kinds a file is; None if it is none."""
    if data.startswith(b"\xff\xd8\xff"):
        frame = next((marker for marker, _content in segments(data) if marker in _NOT_DECODED), None)
        return f"a JPEG whose frame is of type {frame:X}" if frame else None
    return "a PNG as Xcode writes it for iPhones (CgBI)" if data.startswith(_OF_IPHONES) else None
