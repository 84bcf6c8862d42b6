"""Where the pixels of an image end up: how large it becomes, and what is kept of it."""

import math
from dataclasses import dataclass

from workers.models.spec import ModelSpec

Size = tuple[int, int]
"""Width, height."""
Box = tuple[int, int, int, int]
"""Left, top, right, bottom."""

COLUMNS_FIRST_SINCE = 13
"""The version of Pillow that does the columns first where they lose more than twice as many pixels as the rows."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a model's reference makes of an image of some size."""

    size: Size
    """After resizing."""
    window: Box
    """What is kept of that."""


def canvas_of(spec: ModelSpec, size: Size) -> Size:
    """What is resized: the image, or the square around it."""
    return (max(size), max(size)) if spec.resize == "square-pad" else size


def target_of(spec: ModelSpec, size: Size) -> Target:
    """Size and window for an image of `size`; not for timm's `border`."""
    if spec.resize == "fit":
        fitted = fitted_size(*size, spec.size, grow=spec.grow)
        return Target(fitted, (0, 0, *fitted))
    resized = timm_size(spec, canvas_of(spec, size))
    left, top = (round((side - spec.size) / 2) for side in resized)
    return Target(resized, (left, top, left + spec.size, top + spec.size))


def fitted_size(width: int, height: int, size: int, *, grow: bool) -> Size:
    """Width and height after fitting into `size` x `size` with the aspect kept.

    Rounds half to even and caps, as JTP's reference does. Where the short side would round to 0 the reference
    fails (beyond about 768:1 at 384); here it is 1.
    """
    scale = min(size / height, size / width)
    if scale == 1.0 or (scale > 1.0 and not grow):
        return width, height
    return max(1, min(round(width * scale), size)), max(1, min(round(height * scale), size))


def timm_size(spec: ModelSpec, size: Size) -> Size:
    """What timm's evaluation transform resizes to, of which it keeps the centre.

    The short side becomes size / crop_pct, rounded down, and so is the other; with `squash` both do.
    """
    side = math.floor(spec.size / spec.crop_pct)
    if spec.crop_mode == "squash":
        return side, side
    width, height = size
    return (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
