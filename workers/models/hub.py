"""Downloads the files of a model from the Hugging Face hub into its cache. Imports `huggingface_hub` when needed."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from db.errors import ModelError
from workers.models.thresholds import THRESHOLD_FILES

CHECKPOINT_FILES = (
    *("config.json", "model.safetensors", "selected_tags.csv", "tags.json", "tagger_tags.json"),
    *("model.json", "preprocess.json", "categories.json", "tags_v0.9_13k.json", "char_ip_map.json", "top_tags.txt"),
    *("camie-tagger-v2.safetensors", "camie-tagger-v2-metadata.json", "ram_tag_list.txt"),
    *THRESHOLD_FILES,
)
"""Files that `read_folder` reads. A repository has some of them."""

ONNX_FILES = ("model.onnx", "model.onnx.data", "*tags*.csv", *("tag_mapping.json", "model_vocabulary.json", "tags.txt"))
"""Patterns of files of an ONNX model. They are fetched only if a repository has no other weights."""


def are_cached(repo: str, files: Sequence[str], revision: str | None, cache_dir: Path | None) -> bool:
    """Whether all of these files are in the cache. Does not use the network."""
    hub = _hub()
    paths = [hub.try_to_load_from_cache(repo, file, cache_dir=cache_dir, revision=revision) for file in files]
    return all(isinstance(path, str) for path in paths)


def fetch_files(repo: str, files: Sequence[str], cache_dir: Path | None) -> Path:
    """Fetch files of a repository. Returns the folder that contains them.

    Cached files are used without contacting the hub: a worker starts without a network, and all workers of a host run
    the same weights.

    Raises:
        ModelError: a file is not in the cache and cannot be downloaded.
    """
    hub = _hub()
    # All or none from the cache: a mixture could be of two revisions, in two folders.
    paths = [hub.try_to_load_from_cache(repo, file, cache_dir=cache_dir) for file in files]
    if not all(isinstance(path, str) for path in paths):
        try:
            paths = [hub.hf_hub_download(repo, file, cache_dir=cache_dir) for file in files]
        except Exception as error:  # also errors of its HTTP library
            raise _sentence(repo, files, error) from error
    return Path(paths[0]).parents[files[0].count("/")]


def fetch_checkpoint(repo: str, revision: str | None, cache_dir: Path | None) -> Path:
    """Fetch those of `CHECKPOINT_FILES` that a repository has; from the cache if the hub cannot be reached.

    Without weights among them, those of `ONNX_FILES` too.

    Returns:
        The folder that contains them.

    Raises:
        ModelError: they are not in the cache and cannot be downloaded.
    """
    hub = _hub()

    def fetched(patterns: Sequence[str]) -> Path:
        return Path(hub.snapshot_download(repo, revision=revision, allow_patterns=list(patterns), cache_dir=cache_dir))

    try:
        folder = fetched(CHECKPOINT_FILES)
        return folder if any(folder.glob("*.safetensors")) else fetched((*CHECKPOINT_FILES, *ONNX_FILES))
    except Exception as error:
        raise _sentence(repo, CHECKPOINT_FILES[:3], error) from error


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ModelError("Downloading a model needs more packages. Run: pip install 'tagonce[worker]'") from error
    return huggingface_hub


def _sentence(repo: str, files: Sequence[str], error: Exception) -> ModelError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        why = "its owner requires that you accept terms on its page, and then log in here (hf auth login)"
    elif isinstance(error, RepositoryNotFoundError):
        why = "there is no such repository, or it is private"
    elif isinstance(error, RevisionNotFoundError):
        why = "it does not have this revision"
    else:
        why = f"it is not in the cache and could not be downloaded ({_first_line(error)})"
    return ModelError(
        f"Model files of {repo}: {why}. Without a network: download {', '.join(files)} from huggingface.co/{repo} "
        "elsewhere, put them into one folder here, and point at it with --model FOLDER."
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200].rstrip(".")
