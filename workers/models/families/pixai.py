"""PixAI tagger v0.9: an EVA02 of timm and a linear head, saved as the two parts of a sequence.

`tags_v0.9_13k.json` is {"tag_map": {tag: position}, "tag_split": {"gen_tag_count", "character_tag_count"}}; the general
tags come first. `char_ip_map.json` is {character: [series]}. One tag has an empty name, and keeps its position.
"""

from pathlib import Path
from typing import Any

from db.errors import ModelError
from db.ledger.models import Tag
from workers.models.families.files import ModelFiles
from workers.models.key_map import KeyMap
from workers.models.stages import Stage
from workers.models.tag_files import positions, read_json

_HEAD = "1.head.0.weight"


def fields(files: ModelFiles) -> dict[str, Any] | None:
    """Fields of the specification; None for other files."""
    if not files.has(_HEAD, "0.patch_embed.proj.weight"):
        return None
    path = files.tag_file("tags_v0.9*.json", "tags.json")
    tags = _tags(path)
    files.expect_tags(path, len(tags), _HEAD, files.shape(_HEAD, 2)[0])
    size = files.size(448)
    return {
        "family": "pixai",
        "architecture": "eva02_large_patch14_448",
        "keys": KeyMap(renames=((r"^0\.", ""), (r"^1\.head\.0\.", "head."))),
        "tags": tags,
        "implied": _series(files.folder / "char_ip_map.json"),
        "size": size,
        "resize": "stages",
        "stages": (Stage("resize", (size, size), "bilinear"),),
        "background": (1.0, 1.0, 1.0),
        "default_threshold": 0.3,
    }


def _tags(path: Path) -> tuple[Tag, ...]:
    content = read_json(path)
    try:
        names = positions(path, content["tag_map"])
        general = int(content["tag_split"]["gen_tag_count"])
    except (KeyError, TypeError) as error:
        raise ModelError(f"{path} should have tag_map and tag_split with gen_tag_count. Download it again.") from error
    return tuple(Tag(name, "general" if index < general else "character") for index, name in enumerate(names))


def _series(path: Path) -> tuple[tuple[str, str], ...]:
    if not path.is_file():
        return ()
    content = read_json(path)
    if not isinstance(content, dict):
        raise ModelError(f"{path} should be one JSON object, from characters to lists of series.")
    return tuple((character, one) for character, series in content.items() for one in series)
