"""From a decoded image of whatever mode to a small WebP that holds its pixels, for a screen, and nothing else."""

import io
from typing import cast

from PIL import Image, ImageCms
from PIL.Image import Transpose

from workers.images.alpha import with_alpha
from workers.images.geometry import Size, fitted_size

SIZE = 360
"""Pixels of the longer side: two for each that a gallery of 180 shows on a fine screen."""
PREVIEW_SIZE = 1200
"""Of an image that is looked at alone."""

_QUALITY = 80
_METHOD = 2
"""Of searching for the smallest file, 0 to 6: half the time of the default, 4, for 3 % more bytes."""
_REDUCING_GAP = 2.0
"""A large image is first averaged down to so many times its size: Pillow calls it close to as good."""

_MODES = ("L", "RGB", "CMYK")
"""Those of pictures without transparency that can be resized and that profiles are about."""
_DEEP = ("I", "F")
"""How the names of modes of more than eight bits begin."""
_EIGHT_BITS, _SIXTEEN_BITS = 255, 65535

_LARGEST_PROFILE = 4 * 1024 * 1024
"""Bytes. Those of printers have up to some two million."""
_ANY_PROGRAM = b"mpet"
"""The type of a profile's tag that chains as many steps as it likes, the same ones again and again: minutes."""


def target(original: Size, side: int) -> Size:
    """What fits into a square of this side. A small image stays as it is."""
    return fitted_size(*original, side, grow=False)


def shrink(image: Image.Image, turn: Transpose | None, side: int) -> bytes:
    """The file. Transparency is kept, for the page to show through.

    Args:
        image: of any mode; it may have been reduced already.
        turn: what turns it upright.
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
    image.info = {}  # where an image was taken and by whom is none of a thumbnail's business
    file = io.BytesIO()
    image.save(file, "WEBP", quality=_QUALITY, method=_METHOD)
    return file.getvalue()


def _resizable(image: Image.Image) -> Image.Image:
    """L, RGB, CMYK, or RGBA where a pixel is transparent."""
    if image.mode.startswith(_DEEP):
        return _eight_bits(image)
    if image.mode in _MODES and "transparency" not in image.info:
        return image
    image, transparent = with_alpha(image)
    return image if transparent else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey. Pillow would cut off what is above 255; here white is the end of the range that the highest value is in."""
    image = image.convert("F")
    _lowest, highest = cast("tuple[float, float]", image.getextrema())
    white = next((end for end in (1, _EIGHT_BITS, _SIXTEEN_BITS) if highest <= end), highest)
    return image.point(lambda value: value * (_EIGHT_BITS / white)).convert("L")


def _in_srgb(image: Image.Image, profile: object) -> Image.Image:
    """RGB or RGBA, by the profile if it is sound and of such an image."""
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
