"""Steps of preprocessing on 8-bit pixels, for models whose reference has more than one, or rounds in its own way."""

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["fit", "resize", "short", "crop"]
PillowFilter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Rounding = Literal["round", "int"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One step. Sizes are (width, height) in pixels, colours red, green, blue in 0..1."""

    kind: Kind
    """`fit`: scale into `size` with the aspect ratio kept, and centre on a canvas of `size`; `resize`: to exactly
    `size`; `short`: scale so that the short side is `size[0]`; `crop`: the centre, of `size`."""
    size: tuple[int, int]
    filter: PillowFilter = "bilinear"
    """Pillow's resampling filter."""
    rounding: Rounding = "round"
    """Of the sides after `fit`: to the nearest, half to even, or down."""
    fill: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Colour of the canvas of `fit`."""

    def scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        """Size of an image of `size` after the step's resize, before its canvas or crop."""
        (width, height), (to_width, to_height) = size, self.size
        if self.kind == "crop":
            return size
        if self.kind == "resize":
            return self.size
        if self.kind == "short":  # torchvision.transforms.Resize with one number
            short, long = min(size), max(size)
            other = int(to_width * long / short)
            return (to_width, other) if width <= height else (other, to_width)
        scale = min(to_width / width, to_height / height)
        rounded = round if self.rounding == "round" else math.floor
        # A strip whose short side would vanish keeps one pixel; the references fail.
        new_width, new_height = (max(1, rounded(side * scale)) for side in size)
        return min(new_width, to_width), min(new_height, to_height)

    def after(self, size: tuple[int, int]) -> tuple[int, int]:
        """Size of an image of `size` after the step."""
        return self.size if self.kind in {"fit", "crop"} else self.scaled(size)
