"""Which modes of Pillow have transparency, and their conversion to four bytes a pixel."""

from PIL import Image

_OPAQUE = (255, 255)
_WORDS = ("RGB", "RGBA")
"""Modes with four bytes a pixel, the first three being red, green and blue."""


def without_alpha(image: Image.Image) -> Image.Image:
    """The image as RGB, or as RGBA whose alpha the caller ignores: the same colours as of `convert("RGB")`."""
    return image if image.mode in _WORDS else image.convert("RGB")


def as_words(image: Image.Image) -> Image.Image:
    """The image as RGB, or as RGBA if a pixel may be transparent."""
    if "transparency" not in image.info:
        if image.mode == "RGB":
            return image
        if image.mode == "L":
            return image.convert("RGB")
    if image.mode == "La":  # the only mode that Pillow does not convert in one step
        image = image.convert("LA")
    return image if image.mode == "RGBA" else image.convert("RGBA")


def as_composited(image: Image.Image) -> Image.Image:
    """The image as RGBA if the reference of the WD taggers composites it, else as RGB.

    It composites RGBA and files with a transparent colour; grey with alpha (LA) loses its alpha.
    """
    if image.mode in _WORDS:
        return image
    return image.convert("RGBA" if "transparency" in image.info else "RGB")


def with_alpha(image: Image.Image) -> tuple[Image.Image, bool]:
    """The image as RGB or RGBA, and whether a pixel is transparent. If none is, the caller ignores alpha."""
    image = as_words(image)
    return image, image.mode == "RGBA" and image.getchannel("A").getextrema() != _OPAQUE
