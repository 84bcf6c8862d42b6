"""JoyTag: a vision transformer behind a stem of convolutions, with fixed sines as positions.

`config.json` of its own ("class": "ViT"), `model.safetensors`, and `top_tags.txt`, a tag a line.
"""

from typing import Any

from db.errors import ModelError
from db.ledger.models import Tag
from db.names import text_files
from workers.models.families.files import ModelFiles
from workers.models.key_map import KeyMap
from workers.models.tag_files import refuse_duplicates

_STEM, _HEAD = "patch_embeddings.conv.0.weight", "head.weight"
_RATINGS = 9
"""Rows that older files have behind those of the tags, of which there is no list."""
_KEYS = (
    (r"^patch_embeddings\.", "patch_embed."),
    (r"\.qkv_proj\.", ".attn.qkv."),
    (r"\.out_proj\.", ".attn.proj."),
    (r"\.skip_init([12])\.skip$", r".ls\1.gamma"),
    (r"\.mlp\.linear([12])\.", r".mlp.fc\1."),
)


def fields(files: ModelFiles) -> dict[str, Any] | None:
    """Fields of the specification; None for other files."""
    if not files.has(_STEM):
        return None
    path = files.folder / "config.json"
    config = files.config()
    try:
        width, mlp, stem = config["d_model"], config["mlp_dim"], config["cnn_stem"]
        model_args = {"embed_dim": width, "depth": config["num_blocks"], "num_heads": config["num_heads"]}
        size, sines = config["image_size"], config["use_sine"]
    except KeyError as error:
        raise ModelError(f"{path} lacks {error}, which JoyTag's config.json has. Download it again.") from error
    if config.get("class") != "ViT" or sines is not True:
        raise ModelError(f"{path}: of JoyTag only the class ViT with use_sine is supported.")
    tag_file = files.tag_file("top_tags.txt")
    names = [line.strip() for line in text_files.read_text(tag_file, ModelError).splitlines() if line.strip()]
    refuse_duplicates(tag_file, names)
    rows = files.shape(_HEAD, 2)[0]
    if rows != len(names) + _RATINGS:
        files.expect_tags(tag_file, len(names), _HEAD, rows)
    return {
        "family": "joytag",
        "architecture": "vit_base_patch16_224",
        "network": "joytag",
        "model_args": model_args | {"mlp_ratio": mlp / width, "img_size": size},
        "head_args": {"stem": [_layer(files, part) for part in stem.split(";") if part.startswith("conv:")]},
        "keys": KeyMap(renames=_KEYS, rows=(("head.weight", len(names)), ("head.bias", len(names)))),
        "tags": tuple(Tag(name) for name in names),
        "size": size,
        "resize": "square-pad",
        "fill": (1.0, 1.0, 1.0),
        "mean": (0.48145466, 0.4578275, 0.40821073),
        "std": (0.26862954, 0.26130258, 0.27577711),
        "default_threshold": 0.4,
    }


def _layer(files: ModelFiles, text: str) -> dict[str, int]:
    """A convolution of the stem, `conv:c=64,k=3,s=2,p=1`: channels, kernel, stride, padding."""
    layer = {"k": 3, "s": 2, "p": 1}
    for part in text.removeprefix("conv:").split(","):
        key, _, number = part.partition("=")
        if key not in {"c", "k", "s", "p"} or not number.isdecimal():
            raise ModelError(f"{files.folder / 'config.json'}: cnn_stem has {part!r} in {text!r}, which is not known.")
        layer[key] = int(number)
    return layer
