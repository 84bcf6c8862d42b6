"""What to do with transparency, so that nothing is done where there is none."""

from PIL import Image

from workers.models.spec import Colour

_OPAQUE = (255, 255)
_WORDS = ("RGB", "RGBA")
"""Modes whose pixels have red, green and blue in their first three of four bytes."""


def without_alpha(image: Image.Image) -> Image.Image:
    """RGB, or RGBA whose alpha is to be ignored: alpha is dropped as by `convert("RGB")`."""
    return image if image.mode in _WORDS else image.convert("RGB")


def with_alpha(image: Image.Image) -> tuple[Image.Image, bool]:
    """RGB or RGBA, and whether a pixel is transparent; where none is, alpha is to be ignored."""
    if "transparency" not in image.info:
        if image.mode == "RGB":
            return image, False
        if image.mode == "L":
            return image.convert("RGB"), False
    if image.mode == "La":  # the one mode that Pillow does not convert in one go
        image = image.convert("LA")
    image = image if image.mode == "RGBA" else image.convert("RGBA")
    return image, not _is_opaque(image)


def flattened(image: Image.Image, background: Colour) -> Image.Image:
    """RGB, or RGBA whose alpha is to be ignored, over a colour in 8 bits, as the WD taggers' reference does.

    It asks only whether the mode is RGBA or the file declares a transparent colour: grey with alpha (LA) loses alpha.
    """
    if image.mode not in _WORDS:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode == "RGB" or _is_opaque(image):
        return image
    canvas = Image.new("RGBA", image.size, (*to_bytes(background), 255))
    canvas.alpha_composite(image)
    return canvas


def to_bytes(colour: Colour) -> tuple[int, int, int]:
    """A colour in 0..1 in 8 bits."""
    red, green, blue = (round(255 * part) for part in colour)
    return red, green, blue


def _is_opaque(image: Image.Image) -> bool:
    return image.getchannel("A").getextrema() == _OPAQUE
