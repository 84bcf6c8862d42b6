"""Runs the steps of a model's preprocessing on 8-bit pixels, with Pillow's arithmetic."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from workers.models.stages import Stage
from workers.resize.blend import to_bytes
from workers.resize.geometry import Size
from workers.resize.pixels import Bytes, Raster, Source, to_rgb
from workers.resize.resample import can_resample, resample, without_fourth


def staged(image: Source, stages: Sequence[Stage], original: Size) -> Bytes:
    """The image after all steps.

    Args:
        image: RGB, or RGBA whose alpha is ignored.
        original: size of the image; of one that was decoded at reduced size, the size before.

    Returns:
        uint8 [height, width, 3].
    """
    for stage in stages:
        resized = stage.kind != "crop"
        image = _resized(image, stage, stage.scaled(original)) if resized else _cropped(image, stage.size)
        if stage.kind == "fit":
            image = _centred(image, stage)
        original = image.size
    return np.asarray(to_rgb(image)) if isinstance(image, Image.Image) else without_fourth(image.bytes())


def _resized(image: Source, stage: Stage, size: Size) -> Source:
    if size == image.size:
        return image
    if not can_resample(stage.filter, image.size):
        return to_rgb(image).resize(size, Image.Resampling[stage.filter.upper()])
    pixels = resample(image, stage.filter, size, (0, 0, *size), canvas=image.size, alpha=True)
    return Raster(np.ascontiguousarray(pixels).view(np.uint32)[..., 0])


def _centred(image: Source, stage: Stage) -> Source:
    """On the canvas of `fit`; an odd pixel of padding is at the right or the bottom."""
    canvas = Image.new("RGB", stage.size, to_bytes(stage.fill))
    place = tuple((outer - inner) // 2 for outer, inner in zip(stage.size, image.size, strict=True))
    canvas.paste(to_rgb(image), (place[0], place[1]))
    return canvas


def _cropped(image: Source, size: Size) -> Source:
    """The centre, as of torchvision: an odd pixel is cut at the side that rounding half to even gives."""
    left, top = (round((outer - inner) / 2) for outer, inner in zip(image.size, size, strict=True))
    return to_rgb(image).crop((left, top, left + size[0], top + size[1]))
