"""Sizes of an image on its way to the input of a model: canvas, resized size, and crop."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from workers.models.spec import PATCH, ModelSpec
from workers.models.stages import Stage
from workers.resize.patch_grid import patch_grid, snapped_grid

Size = tuple[int, int]
"""Width, height."""
Box = tuple[int, int, int, int]
"""Left, top, right, bottom."""

COLUMNS_FIRST_SINCE = 13
"""First version of Pillow that resizes columns first if they lose more than twice as many pixels as the rows."""


@dataclass(frozen=True, slots=True)
class Target:
    """Resized size and crop of an image, as in the reference of a model."""

    size: Size
    """Of the whole canvas after resizing."""
    window: Box
    """The crop that is kept."""


def canvas_of(spec: ModelSpec, size: Size) -> Size:
    """Size of the canvas that is resized: the image, or the square around it."""
    return (max(size), max(size)) if spec.resize == "square-pad" else size


def target_of(spec: ModelSpec, size: Size) -> Target:
    """Resized size and crop for an image of `size`; of the first step of several. Not for crop mode `border`."""
    if spec.resize == "fit":
        fitted = fitted_size(*size, spec.size, grow=spec.grow)
        return Target(fitted, (0, 0, *fitted))
    if spec.takes_patches:
        snaps = spec.resize == "snap"
        rows, columns = snapped_grid(*size, spec.size) if snaps else patch_grid(*size, (spec.size // PATCH) ** 2)
        return Target((PATCH * columns, PATCH * rows), (0, 0, PATCH * columns, PATCH * rows))
    if spec.resize == "stages":
        first = spec.stages[0].scaled(size)
        return Target(first, (0, 0, *first))
    resized = timm_size(spec, canvas_of(spec, size))
    left, top = (round((side - spec.size) / 2) for side in resized)
    return Target(resized, (left, top, left + spec.size, top + spec.size))


def largest_between(stages: Sequence[Stage], size: Size) -> int:
    """Pixels of the largest image between the steps for an image of `size`."""
    largest = 0
    for stage in stages:
        largest = max(largest, math.prod(stage.scaled(size)))
        size = stage.after(size)
    return largest


def fitted_size(width: int, height: int, size: int, *, grow: bool) -> Size:
    """Width and height after fitting into `size` x `size` with the aspect ratio kept.

    Rounds half to even and caps at `size`, as JTP's reference does. If the short side would round to 0 (beyond about
    768:1 at 384), the reference fails; here it is 1.

    Args:
        grow: enlarge smaller images.
    """
    scale = min(size / height, size / width)
    if scale == 1.0 or (scale > 1.0 and not grow):
        return width, height
    return max(1, min(round(width * scale), size)), max(1, min(round(height * scale), size))


def timm_size(spec: ModelSpec, size: Size) -> Size:
    """Size after the resize of timm's evaluation transform, before its centre crop (`timm.data.transforms_factory`).

    The short side becomes floor(size / crop_pct), and the other is scaled and rounded down; with `squash` both sides
    become that.
    """
    side = math.floor(spec.size / spec.crop_pct)
    if spec.crop_mode == "squash":
        return side, side
    width, height = size
    return (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
