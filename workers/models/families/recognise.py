"""Recognises a family by the files of a folder and the names of tensors."""

from collections.abc import Callable
from typing import Any

from workers.models.families import camie, hydra, joytag, pixai, pixai_v1, ram, taggerine, text_matrix
from workers.models.families.files import ModelFiles

_FAMILIES: tuple[Callable[[ModelFiles], dict[str, Any] | None], ...] = (
    camie.fields,
    hydra.fields,
    joytag.fields,
    pixai.fields,
    pixai_v1.fields,
    ram.fields,
    taggerine.fields,
    text_matrix.fields,
)
"""Each gives the fields of a `ModelSpec` besides name and weights, or None if the files are of another family. No two
accept the same files."""


def family_fields(files: ModelFiles) -> dict[str, Any] | None:
    """Fields of the family that the files are of; None for plain timm checkpoints and JTP.

    Raises:
        ModelError: the files are of a family, and one is missing or does not fit the others.
    """
    for fields in _FAMILIES:
        found = fields(files)
        if found is not None:
            return found
    return None
