"""Converts colours from an embedded ICC profile to sRGB, as Hydra's reference does with Pillow's ImageCms."""

import io
from functools import lru_cache

from PIL import Image, ImageCms

from workers.images.jpeg_segments import application_segments
from workers.resize.alpha import as_words

_LONGEST = 4 << 20
"""Bytes of a profile that is used. Those of printers have up to three million."""
_CACHED = 32
"""Transforms that are kept. A collection has few profiles, and to prepare a transform takes milliseconds."""
_GREY = frozenset({"1", "L", "LA"})
_OTHERS = frozenset({*_GREY, "P", "PA", "RGB", "RGBA", "CMYK"})
_PARSED = (ImageCms.PyCMSError, OSError, ValueError, TypeError)
"""What LittleCMS and Pillow raise for a profile that is broken, or for other colours."""


def may_have_profile(data: bytes) -> bool:
    """Whether a JPEG or a PNG may have an embedded profile, by a look that is cheap and may be wrong only if true."""
    if data.startswith(b"\xff\xd8"):
        return any(one.startswith(b"ICC_PROFILE\0") for one in application_segments(data, 0xE2))
    return b"iCCP" in data


def in_srgb(image: Image.Image) -> Image.Image:
    """The image in sRGB: relative colorimetric with black point compensation, or the profile's own intent.

    Palettes become RGB or RGBA first. An image without a profile, or with one that cannot be used, is returned as is.
    """
    profile = image.info.get("icc_profile")
    if not profile or len(profile) > _LONGEST:
        return image
    alpha = image.getchannel("A") if image.mode == "LA" else None
    if image.mode in _GREY and "transparency" not in image.info:
        colours = image.convert("L")
    elif image.mode in _OTHERS:
        colours = image if image.mode == "CMYK" else as_words(image)
    else:  # of more than eight bits, or of other colours
        return image
    converted = _converted(colours, profile)
    if converted is None:
        return image
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _converted(image: Image.Image, profile: bytes) -> Image.Image | None:
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    for relative in (True, False):
        try:
            return _transform(profile, image.mode, mode, relative=relative).apply(image)
        except _PARSED:
            continue
    return None


@lru_cache(_CACHED)
def _transform(profile: bytes, mode: str, to_mode: str, *, relative: bool) -> ImageCms.ImageCmsTransform:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    if not relative:
        intent = ImageCms.Intent(ImageCms.getDefaultIntent(source))
    flags = ImageCms.Flags.HIGHRESPRECALC | (ImageCms.Flags.BLACKPOINTCOMPENSATION if relative else 0)
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return ImageCms.ImageCmsTransform(source, target, mode, to_mode, intent, flags=flags)
