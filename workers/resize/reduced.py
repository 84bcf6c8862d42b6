"""Pillow's resize with `reducing_gap`: a large image is first averaged over whole pixels, then filtered."""

import numpy as np
from PIL import Image

from workers.models.spec import Filter
from workers.resize.geometry import Size
from workers.resize.pixels import Bytes, Source, to_rgb

_GAP = 3.0
"""The averaged image is at least so many times as large as the result, in Hydra's reference."""


def is_reduced(size: Size, target: Size) -> bool:
    """Whether Pillow averages before it resizes an image of `size` to `target`."""
    return any(int(side / new / _GAP) > 1 for side, new in zip(size, target, strict=True))


def reduced(image: Source, target: Size, kind: Filter) -> Bytes:
    """Resize the first three channels of an image.

    Returns:
        uint8 [height, width, 3] of `target`, (width, height).
    """
    resized = to_rgb(image).resize(target, Image.Resampling[kind.upper()], reducing_gap=_GAP)
    return np.asarray(resized)
