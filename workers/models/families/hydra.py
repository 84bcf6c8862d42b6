"""JTP-3 Hydra and Hydra 3.5 (RedRocket): a NaFlex SO400M, and an attention pool with a query for each tag.

One safetensors file, whose header has the texts:

    modelspec.architecture   naflexvit_so400m_patch16_siglip+rr_hydra, or +rr_hydra2 for 3.5
    classifier.labels        a tag a line; in 3.5 `name category implied1 implied2 ...`
    classifier.background    black (default), grey or white
    classifier.resize        lanczos (default) or mks2013-linear

JTP-3 has the categories and implications in a table, `jtp-3-hydra-tags.csv` (tag,category,implications).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from db.errors import ModelError
from db.ledger.models import Tag
from workers.models.families.files import ModelFiles
from workers.models.key_map import KeyMap
from workers.models.tag_files import E621_CATEGORIES, csv_rows, refuse_duplicates

_ARCHITECTURE = "naflexvit_so400m_patch16_siglip"
_NETWORKS = {f"{_ARCHITECTURE}+rr_hydra": "hydra", f"{_ARCHITECTURE}+rr_hydra2": "hydra2"}
_QUERY = "attn_pool.q"
_BACKGROUNDS = {"black": (0.0,) * 3, "grey": (0.5,) * 3, "white": (1.0,) * 3}
_FILTERS = ("lanczos", "mks2013-linear")
_INNER = ("attn_pool.ff.proj_in.weight", "attn_pool.ff_in.weight")
"""Two names of the first layer of the pool's feed-forward network."""
_OLD_HEAD = "attn_pool.out_proj.weight"
_THRESHOLDS = {"hydra": 0.75, "hydra2": 0.62}
"""Of JTP-3 the authors' one; 3.5 has one for each tag, with this median."""
_TABLE_COLUMNS = ("tag", "category", "implications")

_KEYS = KeyMap(
    # The counts of the validation are a table for thresholds.
    drops=("validation",),
    renames=(
        (r"^(embeds|blocks|norm)\.", r"body.\1."),
        (r"^attn_pool\.ff_in\.", "attn_pool.ff.proj_in."),
        (r"^attn_pool\.ff_out\.", "attn_pool.ff.proj_out."),
        (r"^attn_pool\.ff_norm\.", "attn_pool.ff.norm."),
        (r"^attn_pool\.out_proj\.", "head.proj."),
    ),
)


def fields(files: ModelFiles) -> dict[str, Any] | None:
    """Fields of the specification; None for other files."""
    metadata = files.header.metadata
    network = _NETWORKS.get(metadata.get("modelspec.architecture", ""))
    if network is None:
        return None
    heads, rows, head_width = files.shape(_QUERY, 3)
    tags, implied = _tags(files)
    files.expect_tags(files.weights, len(tags), _QUERY, rows)
    inner, _width = files.shape(_INNER[0] if files.has(_INNER[0]) else _INNER[1], 2)
    return {
        "family": "hydra",
        "architecture": _ARCHITECTURE,
        "network": network,
        "head_args": {"heads": heads, "head_width": head_width, "inner": inner // 2},
        "keys": KeyMap(_KEYS.drops, _KEYS.renames, swaps=("head.proj.weight",) if files.has(_OLD_HEAD) else ()),
        "tags": tags,
        "implied": implied,
        "size": files.size(512),
        "resize": "patches",
        "filter": _choice(files, "classifier.resize", "lanczos", _FILTERS),
        "background": _BACKGROUNDS[_choice(files, "classifier.background", "black", tuple(_BACKGROUNDS))],
        "orientation": "exif",
        "profile": "srgb",
        "default_threshold": _THRESHOLDS[network],
    }


def _tags(files: ModelFiles) -> tuple[tuple[Tag, ...], tuple[tuple[str, str], ...]]:
    """The tags by output position, and (tag, implied tag)."""
    labels = files.header.metadata.get("classifier.labels", "").splitlines()
    if not any(labels):
        raise ModelError(
            f"{files.weights} has no classifier.labels in its header, the list of tags. Download it again."
        )
    rows = [line.split() or [""] for line in labels]
    refuse_duplicates(files.weights, [name for name, *_ in rows if name])
    described = {name: (category, implied) for name, category, implied in _described(files, rows)}
    tags = tuple(Tag(name, described[name][0] if name in described else None) for name, *_ in rows)
    return tags, tuple((name, one) for name, (_, implied) in described.items() for one in implied)


def _described(files: ModelFiles, rows: list[list[str]]) -> Iterator[tuple[str, str | None, list[str]]]:
    """Name, category and implied tags, from the labels or from the table beside them."""
    table = _table(files)
    if table is None:
        for name, *rest in rows:
            yield name, _category(rest[0] if rest else None), rest[1:]
        return
    for row in csv_rows(table, "tag", _TABLE_COLUMNS):
        yield row["tag"], _category(row.get("category")), (row.get("implications") or "").split()


def _table(files: ModelFiles) -> Path | None:
    """The table of JTP-3: beside the weights, or in `data` beside their folder, as in the repository."""
    if files.stated_tags is not None:
        return files.stated_tags
    name = f"{files.weights.stem}-tags.csv"
    places = (files.folder / name, files.folder.parent / "data" / name)
    return next((place for place in places if place.is_file()), None)


def _category(text: str | None) -> str | None:
    return E621_CATEGORIES.get(text, text) if text else None


def _choice(files: ModelFiles, key: str, default: str, known: tuple[str, ...]) -> str:
    value = files.header.metadata.get(key, default)
    if value not in known:
        raise ModelError(f"{files.weights}: {key} is {value!r} in the header, and known are {', '.join(known)}.")
    return value
