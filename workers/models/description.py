"""A model in words: what its preprocessing does, and how large it is."""

import math
from collections import Counter
from collections.abc import Iterator

from workers.models.safetensors_header import read_header
from workers.models.spec import PATCH, Colour, ModelSpec
from workers.models.stages import Stage

_FP32 = 4
"""Bytes of a weight in fp32."""
_NAMED = {(0.0, 0.0, 0.0): "black", (0.5, 0.5, 0.5): "grey", (1.0, 1.0, 1.0): "white"}


def preprocessing(spec: ModelSpec) -> list[str]:
    """The steps from a decoded image to the input of the network, in order."""
    return list(_steps(spec))


def parameters(spec: ModelSpec) -> int | None:
    """Number of weights in the file; None for a file whose header is not read here."""
    if spec.weights.suffix != ".safetensors":
        return None
    return sum(math.prod(shape) for shape in read_header(spec.weights).shapes.values())


def memory(number: int) -> int:
    """Bytes of so many weights in fp32. In fp16 and bf16 they take half of it; activations come on top."""
    return _FP32 * number


def tags_by_category(spec: ModelSpec) -> dict[str | None, int]:
    """Number of tags of each category, in the order of the tag list."""
    return dict(Counter(tag.category for tag in spec.tags if tag.name))


def _steps(spec: ModelSpec) -> Iterator[str]:
    if spec.orientation == "exif":
        yield "turned as its EXIF data say"
    if spec.profile == "srgb":
        yield "colours converted from its ICC profile to sRGB"
    yield "alpha is dropped" if spec.background is None else f"transparent pixels are put over {_name(spec.background)}"
    side = f"{spec.size} x {spec.size}"
    if spec.resize == "fit":
        grow = "" if spec.grow else ", never enlarged"
        yield f"resized ({spec.filter}) to fit into {side}, keeping the aspect ratio{grow}"
        after = spec.fill_when == "after"
        yield f"centred; the rest is {_value(spec.fill) + ' after normalising' if after else _name(spec.fill)}"
    elif spec.resize == "patches":
        most = (spec.size // PATCH) ** 2
        yield f"resized ({spec.filter}) to at most {most:,} whole patches of {PATCH} x {PATCH}, never enlarged"
    elif spec.resize == "snap":
        yield f"resized ({spec.filter}): the long side to at most {spec.size}, both to multiples of {PATCH}"
    elif spec.resize == "stages":
        yield from map(_stage, spec.stages)
    else:
        if spec.resize == "square-pad":
            yield f"padded to a square with {_name(spec.fill)}, centred"
        yield _timm(spec, side)
    to_unit = "from 0..255 to 0..1, " if spec.scale == "0..1" else ""
    yield f"{to_unit}minus {_value(spec.mean)}, divided by {_value(spec.std)}"
    if spec.channel_order == "BGR":
        yield "channels from RGB to BGR"


def _stage(stage: Stage) -> str:
    width, height = stage.size
    side = f"{width} x {height}"
    match stage.kind:
        case "fit":
            return f"resized ({stage.filter}) to fit into {side}; centred, the rest is {_name(stage.fill)}"
        case "crop":
            return f"the central {side} is taken"
        case "short":
            return f"resized ({stage.filter}): the short side to {width}"
        case _:
            return f"resized ({stage.filter}) to {side}, not keeping the aspect ratio"


def _timm(spec: ModelSpec, side: str) -> str:
    if spec.crop_mode == "squash":
        return f"resized ({spec.filter}) to {side}, not keeping the aspect ratio"
    long = math.floor(spec.size / spec.crop_pct)
    if spec.crop_mode == "border":
        return f"resized ({spec.filter}): the long side to {long}; padded or cropped to {side}"
    crop = f"; the central {side} is taken" if spec.resize == "timm" or long > spec.size else ""
    return f"resized ({spec.filter}): the short side to {long}{crop}"


def _name(colour: Colour) -> str:
    return _NAMED.get(colour) or f"the colour {_value(tuple(round(255 * one) for one in colour))} of 255"


def _value(colour: tuple[float, ...]) -> str:
    return f"{colour[0]:g}" if len(set(colour)) == 1 else f"({', '.join(f'{one:g}' for one in colour)})"
