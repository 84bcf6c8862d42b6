"""The EXIF orientation of a picture. Only this number of the EXIF data is read, without a library.

Tags: Exif 2.32 (CIPA DC-008), section 4.6.4; segments of a JPEG: ITU-T T.81, annex B.
"""

import struct

from PIL.Image import Transpose

from workers.images.safe_open import Opened

_UPRIGHT = 1
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}

_HEAD = b"Exif\0\0"
_APP1, _SCAN = 0xE1, 0xDA
_ORIENTATION, _SHORT, _ENTRY_BYTES = 0x0112, 3, 12


def turn_of(opened: Opened, data: bytes) -> Transpose | None:
    """The transposition that turns the picture upright; None if it is upright, or has no orientation.

    Args:
        opened: the image; a TIFF has been turned by Pillow.
        data: the file it is from.
    """
    exif = _exif_of_jpeg(data) if opened.format == "jpeg" else opened.image.info.get("exif")
    return _TURNS.get(_orientation(exif.removeprefix(_HEAD))) if isinstance(exif, bytes) else None


def _exif_of_jpeg(jpeg: bytes) -> bytes:
    """Pillow does not get the EXIF of a JPEG (`workers.images.limited_file`)."""
    at = 2
    while jpeg[at : at + 1] == b"\xff" and jpeg[at + 1 : at + 2] != bytes([_SCAN]):
        content = jpeg[at + 4 : at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")]
        if jpeg[at + 1] == _APP1 and content.startswith(_HEAD):
            return content
        at += 4 + len(content)
    return b""


def _orientation(exif: bytes) -> int:
    """The orientation in the first directory of a TIFF, if it is a 16-bit number."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if not order:
        return _UPRIGHT
    try:
        (at,) = struct.unpack_from(order + "4xI", exif)
        (entries,) = struct.unpack_from(order + "H", exif, at)
        table = exif[at + 2 : at + 2 + _ENTRY_BYTES * entries]
        for tag, kind, value in struct.iter_unpack(order + "HH4xH2x", table):
            if (tag, kind) == (_ORIENTATION, _SHORT):
                return int(value)
    except struct.error:  # truncated
        return _UPRIGHT
    return _UPRIGHT
