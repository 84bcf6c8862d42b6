"""Taggerine (lodestones): DINOv3 ViT-H+ with a linear head on its class token and registers.

`*.safetensors` with the names of transformers, and a vocabulary {"idx2tag": [...], "tag2category": {tag: number}} with
the numbers of e621.
"""

from pathlib import Path
from typing import Any

from db.errors import ModelError
from db.ledger.models import Tag
from workers.models.families.files import IMAGENET_MEAN, IMAGENET_STD, ModelFiles
from workers.models.key_map import KeyMap
from workers.models.tag_files import E621_CATEGORIES, read_json, refuse_duplicates

_HEAD = "projection.weight"
_KEYS = KeyMap(
    drops=(r"backbone\.embeddings\.mask_token",),
    renames=(
        (r"^backbone\.embeddings\.register_tokens$", "body.reg_token"),
        (r"^backbone\.embeddings\.patch_embeddings\.", "body.patch_embed.proj."),
        (r"^backbone\.embeddings\.", "body."),
        (r"^backbone\.model\.layer\.", "body.blocks."),
        (r"^backbone\.norm\.", "body.norm."),
        (r"\.attention\.([qv])_proj\.bias$", r".attn.\1_bias"),
        (r"\.attention\.o_proj\.", ".attn.proj."),
        (r"\.attention\.", ".attn."),
        (r"\.mlp\.gate_proj\.", ".mlp.fc1_g."),
        (r"\.mlp\.up_proj\.", ".mlp.fc1_x."),
        (r"\.mlp\.down_proj\.", ".mlp.fc2."),
        (r"\.layer_scale([12])\.lambda1$", r".gamma_\1"),
        (r"^projection\.", "head."),
    ),
    joins=(((".attn.q_proj.weight", ".attn.k_proj.weight", ".attn.v_proj.weight"), ".attn.qkv.weight"),),
)


def fields(files: ModelFiles) -> dict[str, Any] | None:
    """Fields of the specification; None for other files."""
    if not files.has(_HEAD, "backbone.embeddings.register_tokens"):
        return None
    path = files.tag_file("*vocab*.json", "*tag*.json")
    tags = _tags(path)
    files.expect_tags(path, len(tags), _HEAD, files.shape(_HEAD, 2)[0])
    return {
        "family": "taggerine",
        "architecture": "vit_huge_plus_patch16_dinov3_qkvb",
        "network": "taggerine",
        "head_args": {"has_bias": files.has("projection.bias")},
        "keys": _KEYS,
        "tags": tags,
        "size": files.size(1024),
        "resize": "snap",
        "filter": "lanczos",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "default_threshold": 0.4,
    }


def _tags(path: Path) -> tuple[Tag, ...]:
    content = read_json(path)
    try:
        names, numbers = list(content["idx2tag"]), content["tag2category"]
        tags = tuple(Tag(name, _category(numbers.get(name))) for name in names)
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} should have idx2tag, a list, and tag2category ({error!r}). Download it again."
        ) from error
    refuse_duplicates(path, [name for name in names if name])
    return tags


def _category(number: Any) -> str | None:
    return None if number is None else E621_CATEGORIES.get(str(number), f"category_{number}")
