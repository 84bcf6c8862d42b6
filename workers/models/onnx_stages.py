"""`preprocess.json`: the steps of a model's preprocessing, as deepghs' imgutils reads them.

An object with a list of steps under `test`, `stages` or nothing: each is `{"type": ..., argument: value}`. The steps on
pixels are those of torchvision, run on 8-bit images of Pillow.
"""

from pathlib import Path
from typing import Any, get_args

from db.errors import ModelError
from workers.models.stages import PillowFilter, Stage
from workers.models.tag_files import read_json

PREPROCESS = "preprocess.json"
_COLOURS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}


def read_stages(path: Path) -> dict[str, Any]:
    """The fields resize, stages, size, mean and std of a `ModelSpec`.

    Raises:
        ModelError: the file has another form, or a step that is not known; the message has the step.
    """
    content = read_json(path)
    steps = content.get("test", content.get("stages")) if isinstance(content, dict) else content
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise ModelError(f"{path} has no list of steps under `test` or `stages`. Download it again.")
    stages: list[Stage] = []
    fields: dict[str, Any] = {}
    for step in steps:
        try:
            fields |= _applied(step, stages)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: the step {step} is not known here ({error}). State it in model.json.") from error
    if not stages or "mean" not in fields:
        raise ModelError(f"{path} lacks a step that resizes, or `normalize`. State the preprocessing in model.json.")
    return fields | {"resize": "stages", "stages": tuple(stages), "size": stages[-1].size[0]}


def _applied(step: dict[str, Any], stages: list[Stage]) -> dict[str, Any]:
    """Add the step to the stages, or return the fields that it gives."""
    size = step.get("size")
    match step["type"]:
        case "normalize":
            return {name: _colour(step[name]) for name in ("mean", "std")}
        case "maybe_to_tensor" | "to_tensor":
            return {}
        case "convert_rgb" if step.get("force_background", "white") == "white":
            return {}
        case "center_crop":
            stages.append(Stage("crop", _square(size)))
        case "pad_to_size":
            stages.append(Stage("fit", _square(size), _filter(step), fill=_COLOURS[step["background_color"]]))
        case "resize" if step.get("max_size") is None:
            square = stages and stages[-1].kind in {"fit", "crop", "resize"}
            kind = "resize" if isinstance(size, list) or square else "short"
            stages.append(Stage(kind, _square(size), _filter(step)))  # type: ignore[arg-type]  # one of its kinds
        case other:
            raise ValueError(other)
    return {}


def _square(size: Any) -> tuple[int, int]:
    """A size as (width, height), of a number or [height, width]."""
    height, width = (size, size) if isinstance(size, int) else size
    if type(height) is not int or height != width or height < 1:
        raise ValueError("only square sizes are supported")
    return width, height


def _filter(step: dict[str, Any]) -> PillowFilter:
    found: PillowFilter = step["interpolation"]
    if found not in get_args(PillowFilter):
        raise ValueError(f"interpolation {found!r}")
    return found


def _colour(values: Any) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue
