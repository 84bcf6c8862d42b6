"""Converts a decoded image of any mode to a small WebP with its pixels and no metadata."""

import io
from typing import cast

from PIL import Image, ImageCms
from PIL.Image import Transpose

from workers.resize.alpha import with_alpha
from workers.resize.geometry import Size, fitted_size

SIZE = 360
"""Pixels of the longer side: twice the 180 of the gallery, for screens of high density."""
PREVIEW_SIZE = 1200
"""Pixels of the longer side of a preview."""

_QUALITY = 80
_METHOD = 2
"""Effort of the encoder, 0 to 6: half the time of the default 4, for 3 % more bytes."""
_REDUCING_GAP = 2.0
"""A large image is first averaged down to this multiple of its final size. Pillow calls the result close to as good."""

_MODES = ("L", "RGB", "CMYK")
"""Modes without transparency that can be resized and have ICC profiles."""
_DEEP = ("I", "F")
"""Prefixes of modes with more than eight bits."""
_EIGHT_BITS, _SIXTEEN_BITS = 255, 65535

_LARGEST_PROFILE = 4 * 1024 * 1024
"""Bytes of an ICC profile. Profiles of printers have up to two million."""
_ANY_PROGRAM = b"mpet"
"""Type of a profile's tag that can chain any number of steps, which takes minutes."""


def target(original: Size, side: int) -> Size:
    """The size that fits into a square of this side. A small image keeps its size."""
    return fitted_size(*original, side, grow=False)


def shrink(image: Image.Image, turn: Transpose | None, side: int) -> bytes:
    """The WebP file. Transparency is kept.

    Args:
        image: of any mode; it may have been reduced already.
        turn: the transposition that turns it upright.
        side: of the square that it has to fit into, in pixels.

    Raises:
        OSError: it cannot be converted, as ValueError and MemoryError.
    """
    profile = image.info.get("icc_profile")
    image = _resizable(image)
    image = image.resize(target(image.size, side), Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP)
    image = _in_srgb(image, profile)
    if turn is not None:
        image = image.transpose(turn)
    image.info = {}  # a thumbnail must not hold the place or the author of the image
    file = io.BytesIO()
    image.save(file, "WEBP", quality=_QUALITY, method=_METHOD)
    return file.getvalue()


def _resizable(image: Image.Image) -> Image.Image:
    """L, RGB, CMYK; RGBA if a pixel is transparent."""
    if image.mode.startswith(_DEEP):
        return _eight_bits(image)
    if image.mode in _MODES and "transparency" not in image.info:
        return image
    image, transparent = with_alpha(image)
    return image if transparent else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of eight bits. Pillow would clip values above 255; here white is the end of the highest value's range."""
    image = image.convert("F")
    _lowest, highest = cast("tuple[float, float]", image.getextrema())
    white = next((end for end in (1, _EIGHT_BITS, _SIXTEEN_BITS) if highest <= end), highest)
    return image.point(lambda value: value * (_EIGHT_BITS / white)).convert("L")


def _in_srgb(image: Image.Image, profile: object) -> Image.Image:
    """RGB or RGBA, converted by the ICC profile if it is valid and matches the mode."""
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    if isinstance(profile, bytes) and len(profile) <= _LARGEST_PROFILE and _ANY_PROGRAM not in profile:
        try:
            screen = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, io.BytesIO(profile), screen, outputMode=mode)
        except ImageCms.PyCMSError:
            converted = None
        if converted:
            return converted
    return image.convert(mode)
