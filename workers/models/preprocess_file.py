"""`preprocess.json`, with which animetimm and deepghs publish the steps of a model's preprocessing.

    {"test": [{"type": "pad_to_size", "size": [512, 512], "background_color": "white", "interpolation": "bilinear"},
              {"type": "resize", "size": 448, "interpolation": "bicubic", "antialias": true, "max_size": null},
              {"type": "center_crop", "size": 448}, {"type": "maybe_to_tensor"},
              {"type": "normalize", "mean": [...], "std": [...]}]}

A size is one number for a square, or of `resize` for the short side; or height and width. Transparency is composited
on white before the first step. PixAI v0.9 has the steps under "stages".
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

from db.errors import ModelError
from workers.models.spec import Colour
from workers.models.stages import PillowFilter, Stage
from workers.models.tag_files import read_json

NAME = "preprocess.json"
_WHITE = (1.0, 1.0, 1.0)
_STEPS = ("pad_to_size", "resize", "center_crop")
_WITHOUT_EFFECT = ("maybe_to_tensor", "to_tensor", "pil_to_tensor")


def preprocess_fields(path: Path) -> dict[str, Any]:
    """Fields of a `ModelSpec` that the file states.

    Raises:
        ModelError: a step or one of its values is not supported; the message names it.
    """
    content = read_json(path)
    steps = content.get("test", content.get("stages")) if isinstance(content, dict) else content
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise ModelError(f'{path} should have a list of steps, objects with a "type", under "test" or "stages".')
    stages: list[Stage] = []
    fields: dict[str, Any] = {"resize": "stages", "background": _WHITE, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    for step in steps:
        kind = step.get("type")
        if kind in _WITHOUT_EFFECT:
            continue
        if kind == "convert_rgb":
            fields["background"] = _colour(path, step, "force_background")
        elif kind == "normalize":
            fields |= {key: _three(path, step, key) for key in ("mean", "std")}
        else:
            stages.append(_stage(path, step, stages[-1] if stages else None))
    if not stages:
        raise ModelError(f"{path} has no step that gives the size of the input.")
    return fields | {"stages": tuple(stages), "size": stages[-1].size[0]}


def _stage(path: Path, step: Mapping[str, Any], before: Stage | None) -> Stage:
    kind = step.get("type")
    if kind not in _STEPS:
        known = ", ".join((*_STEPS, "convert_rgb", "normalize", *_WITHOUT_EFFECT))
        raise ModelError(
            f"{path}: the step {kind!r} is not known (known: {known}). State resize, size, ... in model.json."
        )
    size = _size(path, step)
    if kind == "pad_to_size":
        fill = _colour(path, step, "background_color")
        return Stage("fit", size, _filter(path, step), rounding="round", fill=fill)
    if kind == "center_crop":
        return Stage("crop", size)
    if step.get("max_size") is not None or step.get("antialias", True) is not True:
        raise ModelError(f"{path}: resize is supported with antialias and without max_size, and the step is {step}.")
    if isinstance(step["size"], list) and len(step["size"]) == len(size):
        return Stage("resize", size, _filter(path, step))
    short = Stage("short", size, _filter(path, step))
    if before is None or before.kind == "short":
        return short
    # After a step of a fixed size the result has a fixed size too.
    return Stage("resize", short.scaled(before.size), short.filter)


def _size(path: Path, step: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height; of one number, a square."""
    size = step.get("size")
    match size if isinstance(size, list) else [size]:
        case [int(side)]:
            height = width = side
        case [int(height), int(width)]:
            pass
        case _:
            height = width = 0
    if min(width, height) < 1:
        raise ModelError(
            f"{path}: the size of {step['type']!r} is {size!r}, and should be pixels, or height and width."
        )
    return width, height


def _three(path: Path, step: Mapping[str, Any], key: str) -> Colour:
    match step.get(key):
        case [int() | float() as red, int() | float() as green, int() | float() as blue]:
            return float(red), float(green), float(blue)
        case found:
            raise ModelError(f"{path}: {key} of {step['type']!r} is {found!r}, and should be three numbers.")


def _filter(path: Path, step: Mapping[str, Any]) -> PillowFilter:
    name, known = step.get("interpolation", "bilinear"), get_args(PillowFilter)
    if name not in known:
        raise ModelError(f"{path}: the interpolation {name!r} is not known; known are {', '.join(known)}.")
    return cast("PillowFilter", name)


def _colour(path: Path, step: Mapping[str, Any], key: str) -> Colour:
    from PIL import ImageColor  # not on a host that only enqueues

    try:
        red, green, blue = ImageColor.getrgb(step.get(key) or "white")[:3]
    except (ValueError, AttributeError, TypeError) as error:
        raise ModelError(f"{path}: {key} is {step.get(key)!r}; it should be the name of a colour.") from error
    return red / 255, green / 255, blue / 255
