"""PixAI tagger v1.0: `*.safetensors`, and a `config.json` with its tags ("model_type": "cls_vitdet").

The tags of a category are consecutive: `tags` is the list and `tags_split` is [[category, count], ...].
"""

import math
from typing import Any

from db.errors import ModelError
from db.ledger.models import Tag
from workers.models.families.files import ModelFiles
from workers.models.stages import Stage
from workers.models.tag_files import refuse_duplicates

_POSITIONS, _HEAD = "head_pool.pos_embed", "head.weight"


def fields(files: ModelFiles) -> dict[str, Any] | None:
    """Fields of the specification; None for other files."""
    if not files.has(_POSITIONS, "ln_pre.weight", "patch_embed.proj.weight"):
        return None
    path = files.folder / "config.json"
    tags = _tags(files)
    files.expect_tags(path, len(tags), _HEAD, files.shape(_HEAD, 2)[0])
    width, _channels, patch, _patch = files.shape("patch_embed.proj.weight", 4)
    size = patch * math.isqrt(files.shape(_POSITIONS, 2)[0])
    depth = sum(name.startswith("blocks.") and name.endswith(".norm1.weight") for name in files.header.shapes)
    return {
        "family": "pixai",
        "architecture": "sam3-vitdet",
        "network": "vitdet",
        "head_args": {
            "width": width,
            "depth": depth,
            "patch": patch,
            "mlp": files.shape("blocks.0.mlp.fc1.weight", 2)[0],
            "positions": math.isqrt(files.shape("pos_embed", 3)[1] - 1),
            "heads": 16,
            "window": 24,
            "global_blocks": [7, 15, 23, 31],
        },
        "tags": tags,
        "size": size,
        "resize": "stages",
        "stages": (Stage("fit", (size, size), "bilinear", rounding="int"),),
        "background": (1.0, 1.0, 1.0),
        "default_threshold": 0.2,
    }


def _tags(files: ModelFiles) -> tuple[Tag, ...]:
    path, config = files.folder / "config.json", files.config()
    try:
        names = list(config["tags"])
        categories = [category for category, count in config["tags_split"] for _ in range(count)]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} should have tags and tags_split ({error!r}). Download it again.") from error
    if len(categories) != len(names):
        raise ModelError(f"{path}: tags_split counts {len(categories)} tags, and tags lists {len(names)}.")
    refuse_duplicates(path, [name for name in names if name])
    return tuple(map(Tag, names, categories))
