"""Handling of transparency. Opaque images are detected, so that they cost no compositing."""

from PIL import Image

from workers.models.spec import Colour

_OPAQUE = (255, 255)
_WORDS = ("RGB", "RGBA")
"""Modes with four bytes a pixel, the first three being red, green and blue."""


def without_alpha(image: Image.Image) -> Image.Image:
    """The image as RGB, or as RGBA whose alpha the caller ignores: the same colours as of `convert("RGB")`."""
    return image if image.mode in _WORDS else image.convert("RGB")


def with_alpha(image: Image.Image) -> tuple[Image.Image, bool]:
    """The image as RGB or RGBA, and whether a pixel is transparent. If none is, the caller ignores alpha."""
    if "transparency" not in image.info:
        if image.mode == "RGB":
            return image, False
        if image.mode == "L":
            return image.convert("RGB"), False
    if image.mode == "La":  # the only mode that Pillow does not convert in one step
        image = image.convert("LA")
    image = image if image.mode == "RGBA" else image.convert("RGBA")
    return image, not _is_opaque(image)


def flattened(image: Image.Image, background: Colour) -> Image.Image:
    """The image composited over a colour in 8 bits, as RGB, or as RGBA whose alpha the caller ignores.

    The rules are those of the WD taggers' reference: only RGBA and files with a transparent colour are composited; grey
    with alpha (LA) loses its alpha.
    """
    if image.mode not in _WORDS:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode == "RGB" or _is_opaque(image):
        return image
    canvas = Image.new("RGBA", image.size, (*to_bytes(background), 255))
    canvas.alpha_composite(image)
    return canvas


def to_bytes(colour: Colour) -> tuple[int, int, int]:
    """A colour with parts in 0..1 as parts in 0..255, rounded half to even."""
    red, green, blue = (round(255 * part) for part in colour)
    return red, green, blue


def _is_opaque(image: Image.Image) -> bool:
    return image.getchannel("A").getextrema() == _OPAQUE
