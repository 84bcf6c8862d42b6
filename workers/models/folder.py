"""Recognises the model in a folder by its files.

    config.json with `architecture`    a timm checkpoint; with the list of a WD tagger, a WD tagger
    tags.json and a JTP head           JTP PILOT (`head.weight`) or PILOT2 (`head.linear.weight`)
    names of tensors, or the header    a family of `workers.models.families`
    model.json with `architecture`     anything else that is a timm network with one linear head
    *.onnx                             a model of `workers.models.onnx_folder`; weights in safetensors come first

A field in `model.json` overrides the recognised one.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from db.errors import ModelError
from db.ledger.models import Tag
from db.policy.policies import Policy
from workers.models.families.files import ModelFiles
from workers.models.families.recognise import family_fields
from workers.models.families.text_matrix import NAME as TEXT_MATRIX
from workers.models.model_file import NAME as MODEL_FILE
from workers.models.model_file import read_model_file
from workers.models.onnx_folder import read_onnx_folder
from workers.models.preprocess_file import NAME as PREPROCESS_FILE
from workers.models.preprocess_file import preprocess_fields
from workers.models.safetensors_header import read_header
from workers.models.spec import ModelSpec
from workers.models.tag_files import TAG_FILES, is_wd_list, read_label_names, read_tags
from workers.models.thresholds import read_policy
from workers.models.timm_config import read_timm_config, timm_fields
from workers.models.wordnet_classes import imagenet21k_tags

JTP_ARCHITECTURE = "vit_so400m_patch14_siglip_384"
_GATED = "head.linear.weight"
_LINEAR = "head.weight"
_PICKLES = (".pth", ".pt", ".bin", ".ckpt")

_JTP_FIELDS: dict[str, Any] = {
    "family": "jtp",
    "architecture": JTP_ARCHITECTURE,
    "size": 384,
    "resize": "fit",
    "grow": True,
    "filter": "lanczos",
    "background": (0.5, 0.5, 0.5),
    "fill": (0.0, 0.0, 0.0),
    "fill_when": "after",
    "default_threshold": 0.2,
}
_WD_FIELDS: dict[str, Any] = {
    "family": "wd",
    "resize": "square-pad",
    "background": (1.0, 1.0, 1.0),
    "fill": (1.0, 1.0, 1.0),
    "channel_order": "BGR",
}


def read_folder(folder: Path, name: str | None = None, *, weights: str | None = None) -> ModelSpec:
    """The model in a folder.

    Args:
        folder: contains one weight file, a tag list, and if needed `config.json` or `model.json`.
        name: name of the model; by default that of `model.json`, or of the folder.
        weights: name of the weight file; by default that of `model.json`, or the only one.

    Raises:
        ModelError: a file is missing or not recognised, or weights and tag list do not belong together.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder. Give a folder with *.safetensors or *.onnx, and a tag list.")
    stated = read_model_file(folder)
    weight_file = _weights(folder, stated.pop("weights", weights))
    if weight_file.suffix == ".onnx":
        stated_name = stated.pop("name", None)
        found = read_onnx_folder(folder, weight_file, stated)
        policy = _policy(folder, weight_file, found["tags"], stated)
        return ModelSpec(**found, weights=weight_file, policy=policy, name=name or stated_name or folder.resolve().name)
    header = read_header(weight_file)
    family = family_fields(ModelFiles(folder, weight_file, header, dict(stated)))
    tag_file = _tag_file(folder, stated.pop("tags", None))
    fields: dict[str, Any]
    if family is not None:
        fields, tags = family, family["tags"]
    elif (config := read_timm_config(folder / "config.json")) is not None:
        tags = _timm_tags(folder, tag_file, config)
        fields = timm_fields(folder / "config.json", config, len(tags))
        if (folder / PREPROCESS_FILE).exists() and "resize" not in stated:
            fields |= preprocess_fields(folder / PREPROCESS_FILE)
        elif tag_file is not None and is_wd_list(tag_file):
            fields |= _WD_FIELDS
    else:
        if tag_file is None:
            raise ModelError(f"{folder} has no tag list. Put {', '.join(TAG_FILES)} or a timm config.json there.")
        tags = read_tags(tag_file)
        fields = _fields_without_config(folder, tag_file, tags, header.shapes, stated)
    name = name or stated.pop("name", None) or folder.resolve().name
    policy = _policy(folder, weight_file, tags, stated)
    stated["head_args"] = fields.get("head_args", {}) | stated.get("head_args", {})
    fields |= {"weights": weight_file, "tags": tags, "policy": policy} | stated | {"name": name}
    if fields["family"] == "jtp":
        # Set explicitly instead of by timm's defaults, so that it is part of the identity.
        fields["model_args"] = {"img_size": fields["size"]} | fields.get("model_args", {})
    return ModelSpec(**fields)


def _policy(folder: Path, weights: Path, tags: Sequence[Tag], stated: dict[str, Any]) -> Policy:
    policy = read_policy(folder, weights, tags)
    return replace(policy, default=None) if "default_threshold" in stated else policy


def _fields_without_config(
    folder: Path,
    tag_file: Path,
    tags: tuple[Tag, ...],
    shapes: dict[str, tuple[int, ...]],
    stated: dict[str, Any],
) -> dict[str, Any]:
    """Fields implied by the files of JTP; only the family for a folder that is described by `model.json`."""
    jtp_head = _GATED in shapes or _LINEAR in shapes
    if stated.get("architecture", JTP_ARCHITECTURE) == JTP_ARCHITECTURE and jtp_head and tag_file.suffix == ".json":
        return _JTP_FIELDS | {"head": _jtp_head(tag_file, len(tags), shapes)}
    missing = [key for key in ("architecture", "size", "resize", "mean", "std") if key not in stated]
    if missing:
        raise ModelError(
            f"{folder} has weights of an unknown kind: there is no timm config.json, and the weights have "
            f"no head of a JTP model. Describe the model in {MODEL_FILE}, which lacks: {', '.join(missing)}."
        )
    return {"family": "timm"}


def _jtp_head(tag_file: Path, tags: int, shapes: dict[str, tuple[int, ...]]) -> str:
    """`linear` or `gated`, by the rows of the head, which also show that weights and tag list belong together."""
    head, key, per_tag = ("gated", _GATED, 2) if _GATED in shapes else ("linear", _LINEAR, 1)
    rows = shapes[key][0] if shapes[key] else 0
    if rows != per_tag * tags:
        raise ModelError(
            f"{tag_file} lists {tags} tags, for which {key} needs {per_tag * tags} rows, and it has {rows}. "
            "The weights and the tag list belong to different models."
        )
    return head


def _timm_tags(folder: Path, tag_file: Path | None, config: dict[str, Any]) -> tuple[Tag, ...]:
    if tag_file is not None:
        return read_tags(tag_file)
    tags = read_label_names(folder / "config.json", config) or imagenet21k_tags(config)
    if tags is None:
        raise ModelError(
            f"{folder / 'config.json'} names no labels (label_names). Add a tags.json, name to output index."
        )
    return tags


def _weights(folder: Path, stated: str | None) -> Path:
    if stated is not None:
        if Path(stated).suffix not in (".safetensors", ".onnx"):
            raise ModelError(
                f"{folder / MODEL_FILE}: weights is {stated!r}, but only *.safetensors and *.onnx are read."
            )
        return folder / stated
    # Where a repository has both, torch runs the network: in any precision, and compiled.
    found = sorted(path for path in folder.glob("*.safetensors") if path.name != TEXT_MATRIX)
    found = found or sorted(folder.glob("*.onnx"))
    if len(found) == 1:
        return found[0]
    for usual in ("model.safetensors", "model.onnx"):
        if folder / usual in found:
            return folder / usual
    if found:
        raise ModelError(
            f"{folder} has several weight files: {', '.join(path.name for path in found)}. "
            f'Name one in {MODEL_FILE}: {{"weights": "{found[0].name}"}}.'
        )
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickled:
        raise ModelError(
            f"{folder} has only {', '.join(pickled)}, and files of that kind can run code when opened. Convert it, "
            f"which runs nothing: tagonce models convert {folder / pickled[0]} {folder / 'model.safetensors'}"
        )
    raise ModelError(f"{folder} has no *.safetensors and no *.onnx. Put the model's weight file there.")


def _tag_file(folder: Path, stated: str | None) -> Path | None:
    if stated is not None:
        return folder / stated
    return next((folder / name for name in TAG_FILES if (folder / name).is_file()), None)
