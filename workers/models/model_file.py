"""`model.json`: describes the model in a folder where its other files do not.

Every key is a field of `ModelSpec`; `tags` and `weights` are names of files in the same folder. Unknown keys are
refused, because a misspelt `activaton` would silently change every score.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from db.errors import ModelError
from workers.models.spec import Activation, ChannelOrder, Colour, CropMode, FillWhen, Layout, Scale, SquareResize
from workers.models.stages import PillowFilter
from workers.models.tag_files import read_json

NAME = "model.json"


class _ModelFile(BaseModel):
    """The keys. Defaults are not used: only keys in the file are."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    name: str = ""
    architecture: str = ""
    model_args: dict[str, Any] = {}
    head_args: dict[str, Any] = {}
    tags: str = ""
    weights: str = ""
    activation: Activation = "sigmoid"
    resize: SquareResize = "timm"
    grow: bool = True
    size: int = 0
    filter: PillowFilter = "bicubic"
    background: Colour | None = None
    fill: Colour = (0.0, 0.0, 0.0)
    fill_when: FillWhen = "before"
    channel_order: ChannelOrder = "RGB"
    mean: Colour = (0.5, 0.5, 0.5)
    std: Colour = (0.5, 0.5, 0.5)
    crop_pct: float = 1.0
    crop_mode: CropMode = "center"
    scale: Scale = "0..1"
    layout: Layout = "NCHW"
    output: str = ""
    default_threshold: float = 0.35


def read_model_file(folder: Path) -> dict[str, Any]:
    """The fields in the `model.json` of a folder; empty if it has none.

    Raises:
        ModelError: keys are unknown or have values of the wrong type. The message names all of them.
    """
    path = folder / NAME
    if not path.exists():
        return {}
    try:
        stated = _ModelFile.model_validate(read_json(path))
    except ValidationError as error:
        problems = "; ".join(_problem(dict(detail)) for detail in error.errors())
        raise ModelError(f"{path}: {problems}.") from error
    return {name: getattr(stated, name) for name in stated.model_fields_set}


def _problem(detail: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in detail["loc"]) or "the file"
    if detail["type"] == "extra_forbidden":
        return f"{where} is not a known key (known: {', '.join(sorted(_ModelFile.model_fields))})"
    return f"{where}: {detail['msg']}"
