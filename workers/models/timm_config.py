"""timm's `config.json`: `architecture`, `model_args`, `num_classes`, `pretrained_cfg`; or, older, all in one object.

The rules are those of timm 1.0 (`timm.models._hub`, `timm.data.resolve_data_config`), so that a checkpoint gives
here the same as `timm.create_model("local-dir:...")` and timm's transform.
"""

from pathlib import Path
from typing import Any

from db.errors import ModelError
from workers.models.tag_files import read_json

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_CROP_PCT = 0.875
_SIZE = 224
_CHANNELS = 3


def read_timm_config(path: Path) -> dict[str, Any] | None:
    """The object in `path` if it is a configuration of timm, that is, has `architecture`; else None."""
    if not path.exists():
        return None
    config = read_json(path)
    return config if isinstance(config, dict) and "architecture" in config else None


def timm_fields(path: Path, config: dict[str, Any], tags: int) -> dict[str, Any]:
    """Fields of a `ModelSpec` that the configuration states or implies.

    Args:
        path: of the file, for messages.
        config: its content.
        tags: number of tags.

    Raises:
        ModelError: the number of classes is not the number of tags, or the input is not square RGB.
    """
    inner: dict[str, Any] = config.get("pretrained_cfg") or config
    model_args = dict(config.get("model_args") or {})
    # model_args takes precedence: the network is built from it.
    classes = model_args.pop("num_classes", config.get("num_classes", inner.get("num_classes")))
    if classes is not None and classes != tags:
        raise ModelError(
            f"{path} says {classes} classes, and the tag list beside it has {tags}. "
            "The weights and the tag list belong to different models."
        )
    size = _square(path, _input_size(inner, model_args))
    if inner.get("fixed_input_size"):
        model_args.setdefault("img_size", size)
    if inner.get("global_pool") and inner is not config:
        model_args.setdefault("global_pool", inner["global_pool"])
    return {
        "family": "timm",
        "architecture": config["architecture"],
        "model_args": model_args,
        "size": size,
        "resize": "timm",
        "filter": inner.get("interpolation") or "bicubic",
        "mean": tuple(inner.get("mean") or _IMAGENET_MEAN),
        "std": tuple(inner.get("std") or _IMAGENET_STD),
        "crop_pct": inner.get("crop_pct") or _CROP_PCT,
        "crop_mode": inner.get("crop_mode") or "center",
    }


def _input_size(inner: dict[str, Any], model_args: dict[str, Any]) -> list[int]:
    """Channels, height, width. A fixed size of the weights takes precedence over that of the configuration."""
    channels, height, width = inner.get("input_size") or (_CHANNELS, _SIZE, _SIZE)
    fixed = model_args.get("img_size")
    if fixed is not None and inner.get("fixed_input_size"):
        height, width = (fixed, fixed) if isinstance(fixed, int) else fixed
    return [model_args.get("in_chans") or channels, height, width]


def _square(path: Path, input_size: list[int]) -> int:
    channels, height, width = input_size
    if channels != _CHANNELS or height != width:
        raise ModelError(f"{path}: the input is {input_size} (channels, height, width); only square RGB is supported.")
    return height
