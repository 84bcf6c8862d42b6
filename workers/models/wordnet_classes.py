"""The classes of ImageNet-21k, for checkpoints of timm whose configuration does not list them.

timm has the list in its package (`timm.data.ImageNetInfo`), and it is read without importing timm, which imports torch.
"""

import re
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from db.errors import ModelError
from db.ledger.models import Tag

_MULTI_LABEL = re.compile(r"(augreg|\d+ep)_in21k")
"""Tags of timm's weights that were trained on ImageNet-21k with a sigmoid for each class (Steiner et al., How to train
your ViT, 2021; Beyer et al., FlexiViT, 2022). Others were trained with a softmax, and their classes exclude each
other."""


def imagenet21k_tags(config: Mapping[str, Any]) -> tuple[Tag, ...] | None:
    """The classes by output position, if a configuration of timm is that of such weights; else None.

    A name is the first lemma, or with its WordNet id if several synsets share the lemma.

    Raises:
        ModelError: timm is not installed.
    """
    inner = config.get("pretrained_cfg") or {}
    if not _MULTI_LABEL.search(str(inner.get("tag", ""))):
        return None
    folder = _info_folder()
    synsets = (folder / "imagenet21k_goog_synsets.txt").read_text(encoding="utf-8").split()
    lines = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    lemmas = {synset: text.partition(",")[0].strip().replace(" ", "_") for synset, _, text in map(_split, lines)}
    shared = Counter(lemmas[synset] for synset in synsets)
    return tuple(
        Tag(lemmas[synset] if shared[lemmas[synset]] == 1 else f"{lemmas[synset]}_({synset})") for synset in synsets
    )


def _split(line: str) -> tuple[str, str, str]:
    return line.partition("\t")


def _info_folder() -> Path:
    found = find_spec("timm")
    if found is None or found.origin is None:
        raise ModelError("The names of ImageNet's classes come with timm. Run: pip install 'tagonce[worker]'")
    return Path(found.origin).parent / "data" / "_info"
