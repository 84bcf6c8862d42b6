"""Recognises the ONNX model in a folder by the layout of its input, the names of its outputs, and its tag list.

Only files that identify a published family are recognised; the number of tags is no sign of one. All else is stated in
`model.json`. `docs/models.md` lists the families and their sources.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.errors import ModelError
from db.ledger.models import Tag
from workers.models import onnx_tags
from workers.models.model_file import NAME as MODEL_FILE
from workers.models.onnx_graph import FLOAT, FLOAT16, OnnxGraph, Value, read_onnx
from workers.models.onnx_tags import find_tag_file, read_onnx_tags
from workers.models.preprocess_file import NAME as PREPROCESS
from workers.models.preprocess_file import preprocess_fields
from workers.models.spec import Layout
from workers.models.stages import Stage
from workers.models.tag_files import csv_rows, has_wd_columns

Fields = dict[str, Any]

_OUTPUTS = ("prediction", "predictions_sigmoid", "output", "refined_predictions", "logits")
"""Names of the output to take, if several have a value per tag: probabilities, then logits."""
_CHANNELS, _AXES = 3, 4
_WHITE, _BLACK = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
_HALF = (0.5, 0.5, 0.5)
_IMAGENET: Fields = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_BYTES: Fields = {"scale": "0..255", "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
_UNIT: Fields = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
_SQUARE_PAD: Fields = {"resize": "square-pad", "filter": "bicubic", "background": _WHITE, "fill": _WHITE}
_SQUASH: Fields = {"resize": "timm", "crop_mode": "squash", "background": _WHITE}

_STATED = ("channel_order", "scale", "mean", "std", "resize", "filter", "background", "activation")
"""Keys of `model.json` that a folder of an unknown family must have."""


@dataclass(frozen=True, slots=True)
class OnnxFolder:
    """The files of a folder."""

    path: Path
    tag_file: Path
    input: Value
    outputs: Sequence[str]
    """Names of all outputs."""
    layout: Layout | None
    """None: the shape of the input does not show it."""
    side: int | None
    """Pixels; None: any size."""

    def square(self, default: int) -> int:
        """The side of the input, which for a graph of any size is that of the family."""
        return self.side or default


def read_onnx_folder(folder: Path, weights: Path, stated: Fields) -> Fields:
    """Fields of a `ModelSpec` for an ONNX file; those that `model.json` states win.

    Args:
        stated: the fields in `model.json`, of which `tags` is removed.

    Raises:
        ModelError: a file is missing or not valid; the files do not belong together; the family is not known, and
            `model.json` does not state all that is needed.
    """
    for key in ("architecture", "model_args"):
        if key in stated:
            raise ModelError(
                f"{folder / MODEL_FILE}: {key} is for timm's networks. Remove it: an ONNX file has its own."
            )
    graph = read_onnx(weights)
    tag_file = folder / name if (name := stated.pop("tags", None)) else find_tag_file(folder)
    if tag_file is None:
        raise ModelError(f"{folder} has no tag list. Put {', '.join(onnx_tags.TAG_FILES[:-1])} there.")
    files = _files(folder, weights, tag_file, graph)
    tags = read_onnx_tags(tag_file)
    fields = next((found for family in _FAMILIES if (found := family(files, tags)) is not None), None)
    if fields is None:
        fields = {"family": "onnx"}
        _refuse_unstated(files, stated)
    shown = {key: value for key, value in (("layout", files.layout), ("size", files.side)) if value is not None}
    for key, value in shown.items():
        if stated.get(key, value) != value:
            raise ModelError(f"{folder / MODEL_FILE}: {key} is {stated[key]}, and the input of {weights} has {value}.")
    fields |= shown | stated
    output = _output(weights, graph.outputs, len(tags), fields.get("output"))
    return fields | {"architecture": "onnx", "tags": tags, "output": output, "external": graph.external}


def _files(folder: Path, weights: Path, tag_file: Path, graph: OnnxGraph) -> OnnxFolder:
    if len(graph.inputs) != 1:
        names = ", ".join(one.name for one in graph.inputs) or "none"
        raise ModelError(f"{weights} should have one input, the images, and has: {names}.")
    (images,) = graph.inputs
    if images.type not in (FLOAT, FLOAT16) or len(images.shape) != _AXES:
        raise ModelError(
            f"{weights}: the input {images.name} should be float32 or float16 with four axes, and has the ONNX type "
            f"{images.type} and {len(images.shape)} axes. Export the model with such an input."
        )
    _, second, third, last = images.shape
    layout: Layout | None = "NHWC" if last == _CHANNELS else "NCHW" if second == _CHANNELS else None
    height, width = (second, third) if layout == "NHWC" else (third, last)
    if height != width and None not in (height, width):
        raise ModelError(f"{weights}: the input is {height} x {width} pixels. Only square inputs are supported.")
    outputs = [one.name for one in graph.outputs]
    return OnnxFolder(folder, tag_file, images, outputs, layout, (height or width) if layout else None)


def _output(weights: Path, outputs: Sequence[Value], tags: int, wanted: str | None) -> str:
    """The output with a value per tag."""
    if wanted is not None and wanted not in (one.name for one in outputs):
        raise ModelError(f"{weights} has no output {wanted!r}; it has {', '.join(one.name for one in outputs)}.")
    fitting = [one.name for one in outputs if len(one.shape) == 2 and one.shape[1] in (tags, None)]  # noqa: PLR2004
    if wanted in fitting:
        return wanted
    chosen = [name for name in _OUTPUTS if name in fitting][:1] or fitting
    if wanted is None and len(chosen) == 1:
        return chosen[0]
    if wanted is None and chosen:
        raise ModelError(
            f"{weights} has several outputs with a value per tag: {', '.join(chosen)}. Name one as `output` in "
            f"{MODEL_FILE}."
        )
    shapes = ", ".join(f"{one.name} {list(one.shape)}" for one in outputs)
    raise ModelError(
        f"The tag list has {tags} tags, and {weights} has no such output [images, {tags}]: {shapes}. "
        "The model and the tag list belong to different models."
    )


def _refuse_unstated(files: OnnxFolder, stated: Fields) -> None:
    needed = list(_STATED)
    if files.layout is None:
        needed.append("layout")
    if files.side is None:
        needed.append("size")
    if stated.get("resize") in {"fit", "square-pad"}:
        needed.append("fill")
    if missing := [key for key in needed if key not in stated]:
        raise ModelError(
            f"{files.path} has an ONNX model of an unknown family, and its preprocessing is not guessed. Describe it "
            f"in {MODEL_FILE}, which lacks: {', '.join(missing)}."
        )


def _wd(files: OnnxFolder, _tags: Sequence[Tag]) -> Fields | None:
    """WD v1.4 to v3 (SmilingWolf/wd-tagger), and nzs234's list of e621 in the same form."""
    if files.layout != "NHWC" or files.tag_file.name != onnx_tags.WD_LIST or not has_wd_columns(files.tag_file):
        return None
    return {"family": "wd", "size": 448, "channel_order": "BGR", "activation": "none"} | _BYTES | _SQUARE_PAD


def _z3d(files: OnnxFolder, _tags: Sequence[Tag]) -> Fields | None:
    """Z3D-E621-Convnext."""
    if files.layout != "NHWC" or files.tag_file.name != onnx_tags.E621_LIST:
        return None
    fields = {"family": "z3d", "size": 448, "channel_order": "BGR", "activation": "none", "default_threshold": 0.3}
    return fields | _BYTES | _SQUARE_PAD


def _cl_tagger(files: OnnxFolder, _tags: Sequence[Tag]) -> Fields | None:
    """cella110n/cl_tagger, versions 1."""
    if files.layout != "NCHW" or files.tag_file.name != onnx_tags.MAPPING:
        return None
    fields = {"family": "cl", "size": 448, "channel_order": "BGR", "mean": _HALF, "std": _HALF}
    return fields | {"activation": "sigmoid", "default_threshold": 0.55} | _SQUARE_PAD


def _cl_tagger_2(files: OnnxFolder, _tags: Sequence[Tag]) -> Fields | None:
    """cella110n/cl_tagger_v2."""
    if files.layout != "NCHW" or files.input.name != "pixel_values" or files.tag_file.name != onnx_tags.VOCABULARY:
        return None
    fields = {"family": "cl", "size": 384, "filter": "bicubic", "mean": _HALF, "std": _HALF, "output": "logits"}
    return fields | {"activation": "sigmoid", "default_threshold": 0.55} | _SQUASH


def _staged(files: OnnxFolder, _tags: Sequence[Tag]) -> Fields | None:
    """Exports with deepghs' preprocess.json: animetimm, and PixAI v0.9 (deepghs/pixai-tagger-v0.9-onnx)."""
    path, names = files.path / PREPROCESS, [name for name in ("prediction", "output") if name in files.outputs]
    if files.layout != "NCHW" or files.tag_file.name != onnx_tags.WD_LIST or not path.exists() or not names:
        return None
    fields = preprocess_fields(path) | {"activation": "none", "output": names[0]}
    if files.side not in (None, fields["size"]):
        raise ModelError(f"{path} gives {fields['size']} pixels, and the model's input has {files.side}.")
    if "ips" in csv_rows(files.tag_file)[0]:  # the series of each character
        return fields | {"family": "pixai", "default_threshold": 0.3}
    return fields | {"family": "animetimm", "default_threshold": 0.4}


def _camie(files: OnnxFolder, _tags: Sequence[Tag]) -> Fields | None:
    """Camais03/camie-tagger-v2."""
    if files.layout != "NCHW" or "refined_predictions" not in files.outputs:
        return None
    side = files.square(512)
    stage = Stage("fit", (side, side), "lanczos", "int", (124 / 255, 116 / 255, 104 / 255))
    fields = {"family": "camie", "size": side, "output": "refined_predictions", "activation": "sigmoid"}
    stages: Fields = {"resize": "stages", "stages": (stage,), "background": _WHITE}
    return fields | stages | _IMAGENET | {"default_threshold": 0.614}


def _pixai(files: OnnxFolder, tags: Sequence[Tag]) -> Fields | None:
    """Exports of pixai-labs/pixai-tagger-v1.0, whose tags come in consecutive categories."""
    is_list = files.tag_file.name in (onnx_tags.INDEX, onnx_tags.CONFIG) and all(tag.category for tag in tags)
    if files.layout != "NCHW" or not is_list:
        return None
    side = files.square(1008)
    stages: Fields = {"resize": "stages", "stages": (Stage("fit", (side, side), "bilinear", "int", _BLACK),)}
    fields = {"family": "pixai", "size": side, "background": _WHITE, "mean": _HALF, "std": _HALF}
    return fields | stages | {"activation": "sigmoid", "default_threshold": 0.2}


def _ml_danbooru(files: OnnxFolder, _tags: Sequence[Tag]) -> Fields | None:
    """deepghs/ml-danbooru-onnx."""
    if files.layout != "NCHW" or files.tag_file.name != onnx_tags.CLASSES:
        return None
    fields = {"family": "ml-danbooru", "size": 448, "filter": "bilinear", "activation": "sigmoid"}
    return fields | {"default_threshold": 0.7} | _UNIT | _SQUASH


def _deepdanbooru(files: OnnxFolder, tags: Sequence[Tag]) -> Fields | None:
    """ONNX exports of KichangKim/DeepDanbooru, with the preprocessing of imgutils: padded with black."""
    is_list = files.tag_file.name == onnx_tags.LINES and {*onnx_tags.RATING_TAGS} <= {tag.name for tag in tags}
    if files.layout != "NHWC" or not is_list:
        return None
    side = files.square(512)
    stages: Fields = {"resize": "stages", "stages": (Stage("fit", (side, side), "bicubic", "int", _BLACK),)}
    fields = {"family": "deepdanbooru", "size": side, "background": _WHITE, "activation": "none"}
    return fields | stages | _UNIT | {"default_threshold": 0.5}


_FAMILIES: tuple[Callable[[OnnxFolder, Sequence[Tag]], Fields | None], ...] = (
    *(_wd, _z3d, _cl_tagger, _cl_tagger_2, _staged, _camie, _pixai, _ml_danbooru, _deepdanbooru),
)
"""Each gives the fields of its family, or None if the files are of another one."""
