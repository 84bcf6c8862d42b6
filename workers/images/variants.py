"""Kinds of files that are sound and that Pillow calls broken, since the library below it cannot tell."""

from workers.images.hostile import segments

_NOT_DECODED = {0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}
"""What begins a frame of a JPEG that libjpeg does not decode: hierarchical, lossless by arithmetic codes, JPEG-LS."""
_OF_IPHONES = b"\x89PNG\r\n\x1a\n\0\0\0\4CgBI"


def unread_variant(data: bytes) -> str | None:
    """What this is, if it is one of them."""
    if data.startswith(b"\xff\xd8\xff"):
        frame = next((marker for marker, _content in segments(data) if marker in _NOT_DECODED), None)
        return f"a JPEG whose frame is of type {frame:X}" if frame else None
    return "a PNG as Xcode makes it for iPhones" if data.startswith(_OF_IPHONES) else None
