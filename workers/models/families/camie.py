"""Camie tagger v2: `*.safetensors`, and `camie-tagger-v2-metadata.json` with its tags.

{"model_info": {"img_size"}, "dataset_info": {"tag_mapping": {"idx_to_tag": {"0": tag}, "tag_to_category": {...}}}}
"""

from pathlib import Path
from typing import Any

from db.errors import ModelError
from db.ledger.models import Tag
from workers.models.families.files import IMAGENET_MEAN, IMAGENET_STD, ModelFiles
from workers.models.key_map import KeyMap
from workers.models.stages import Stage
from workers.models.tag_files import read_json, refuse_duplicates

_EMBEDDING = "tag_embedding.weight"
_FILL = (124 / 255, 116 / 255, 104 / 255)


def fields(files: ModelFiles) -> dict[str, Any] | None:
    """Fields of the specification; None for other files."""
    if not files.has(_EMBEDDING, "backbone.vit.cls_token"):
        return None
    path = files.tag_file("*metadata*.json")
    size, tags = _read(path)
    files.expect_tags(path, len(tags), _EMBEDDING, files.shape(_EMBEDDING, 2)[0])
    return {
        "family": "camie",
        "architecture": "vit_base_patch16_384",
        "network": "camie",
        "model_args": {"img_size": size},
        "head_args": {"heads": 16, "candidates": 256},
        "keys": KeyMap(
            renames=((r"^backbone\.vit\.", "body."), (r"^tag_embedding\.", "head."), (r"^tag_bias$", "head.bias"))
        ),
        "tags": tags,
        "size": size,
        "resize": "stages",
        "stages": (Stage("fit", (size, size), "lanczos", rounding="int", fill=_FILL),),
        "background": (1.0, 1.0, 1.0),
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "default_threshold": 0.614,
    }


def _read(path: Path) -> tuple[int, tuple[Tag, ...]]:
    content = read_json(path)
    try:
        size = int(content["model_info"]["img_size"])
        mapping = content["dataset_info"]["tag_mapping"]
        names, categories = mapping["idx_to_tag"], mapping["tag_to_category"]
        in_order = [names[str(index)] for index in range(len(names))]
        tags = tuple(Tag(name, categories.get(name)) for name in in_order)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{path} should have model_info.img_size and dataset_info.tag_mapping, with idx_to_tag from 0 on. "
            f"It lacks {error}. Download it again."
        ) from error
    refuse_duplicates(path, in_order)
    return size, tags
