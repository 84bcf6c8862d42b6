"""RAM++: `*.safetensors`, converted from the `model` of the published pickle, and `ram_tag_list.txt`, a tag a line."""

from typing import Any

from db.errors import ModelError
from db.ledger.models import Tag
from db.names import text_files
from workers.models.families.files import IMAGENET_MEAN, IMAGENET_STD, ModelFiles
from workers.models.key_map import KeyMap
from workers.models.stages import Stage
from workers.models.tag_files import refuse_duplicates

_LABELS, _SCALE = "label_embed", "reweight_scale"
_LAYER = r"^tagging_head\.encoder\.layer\.(\d+)\."
_KEYS = KeyMap(
    # The text side and the attention among queries were used in training only; the tables of Swin are computed.
    drops=(
        r"(text_encoder|text_decoder)\..*",
        r"(tagging_head|vision_multi)\.(embeddings|cls)\..*",
        r"(tagging_head|vision_multi)\.encoder\.layer\.\d+\.attention\..*",
        r".*\.(relative_position_index|attn_mask|position_ids)",
    ),
    renames=(
        # In timm the reduction of the resolution belongs to the stage that it is before.
        *(
            (rf"^visual_encoder\.layers\.{i}\.downsample", f"visual_encoder.layers.{i + 1}.downsample")
            for i in (2, 1, 0)
        ),
        (r"^vision_multi\.", "tagging_head."),
        (_LAYER + r"crossattention\.self\.", r"layers.\1."),
        (_LAYER + r"crossattention\.output\.dense\.", r"layers.\1.attended."),
        (_LAYER + r"crossattention\.output\.LayerNorm\.", r"layers.\1.norm1."),
        (_LAYER + r"intermediate\.dense\.", r"layers.\1.fc1."),
        (_LAYER + r"output\.dense\.", r"layers.\1.fc2."),
        (_LAYER + r"output\.LayerNorm\.", r"layers.\1.norm2."),
    ),
)
_DESCRIPTIONS = 51


def fields(files: ModelFiles) -> dict[str, Any] | None:
    """Fields of the specification; None for other files."""
    if not files.has(_LABELS, "wordvec_proj.weight", "image_proj.weight"):
        return None
    tag_file = files.tag_file("ram_tag_list.txt")
    names = [line.strip() for line in text_files.read_text(tag_file, ModelError).splitlines() if line.strip()]
    refuse_duplicates(tag_file, names)
    rows, embedding = files.shape(_LABELS, 2)
    files.expect_tags(tag_file, len(names), _LABELS, rows // _DESCRIPTIONS)
    first = "tagging_head" if files.has("tagging_head.encoder.layer.0.intermediate.dense.weight") else "vision_multi"
    inner, width = files.shape(f"{first}.encoder.layer.0.intermediate.dense.weight", 2)
    size = files.size(384)
    return {
        "family": "ram",
        "architecture": "swin_large_patch4_window12_384",
        "network": "ram",
        "head_args": {
            "descriptions": _DESCRIPTIONS,
            "embedding": embedding,
            "width": width,
            "inner": inner,
            "has_scale": files.has(_SCALE),
        },
        "keys": _KEYS,
        "tags": tuple(Tag(name) for name in names),
        "size": size,
        "resize": "stages",
        "stages": (Stage("resize", (size, size), "bilinear"),),
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "default_threshold": 0.65,
    }
