"""Zero-shot taggers: the image tower of SigLIP or CLIP, and a matrix of text embeddings, one for each tag.

The tower is a checkpoint of timm (`config.json`, `model.safetensors`), or has the names of OpenCLIP (`visual.trunk.*`).
The matrix is computed once elsewhere, for instance with OpenCLIP: `text_features.safetensors` has

    text_features      [tags, width], the mean embedding of a tag's prompts
    logit_scale        the logarithm of the scale, as both models store it
    logit_bias         of SigLIP; or instead of it
    negative_features  [width], for CLIP: the embedding of a prompt that none of the tags fits
"""

import hashlib
from typing import Any

from db.errors import ModelError
from workers.models.families.files import ModelFiles
from workers.models.key_map import KeyMap
from workers.models.safetensors_header import read_header
from workers.models.tag_files import TAG_FILES, read_tags
from workers.models.timm_config import read_timm_config, timm_fields

NAME = "text_features.safetensors"
_WHITE = (1.0, 1.0, 1.0)


def fields(files: ModelFiles) -> dict[str, Any] | None:
    """Fields of the specification; None for other files."""
    matrix = files.folder / NAME
    if not matrix.is_file():
        return None
    config_file = files.folder / "config.json"
    config = read_timm_config(config_file)
    if config is None:
        raise ModelError(f"{files.folder} has {NAME} and no config.json of timm, which describes the image tower.")
    shapes = read_header(matrix).shapes
    known = {"text_features", "logit_scale"}
    if set(shapes) not in (known | {"logit_bias"}, known | {"negative_features"}):
        raise ModelError(
            f"{matrix} should have text_features, logit_scale, and either logit_bias (SigLIP) or negative_features "
            f"(CLIP), and has {', '.join(sorted(shapes))}."
        )
    path = files.tag_file(*TAG_FILES)
    tags = read_tags(path)
    if len(shapes["text_features"]) != len(("tags", "width")) or shapes["text_features"][0] != len(tags):
        raise ModelError(f"{path} lists {len(tags)} tags, and text_features of {NAME} is {shapes['text_features']}.")
    inner = config.get("pretrained_cfg") or config
    classes = config.get("num_classes", inner.get("num_classes", 0))
    with matrix.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return timm_fields(config_file, config, classes) | {
        "family": "zero-shot",
        "network": "text",
        "head_args": {
            "text_sha256": digest,
            "projection": classes,
            "width": shapes["text_features"][1],
            "negative": "negative_features" in shapes,
        },
        "text_matrix": matrix,
        "keys": KeyMap(drops=(r"text\..*", "logit_scale", "logit_bias"), renames=((r"^(visual\.trunk\.)?", "body."),)),
        "tags": tags,
        "background": _WHITE,
        "default_threshold": 0.1,
    }
