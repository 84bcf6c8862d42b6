"""Applies a `KeyMap` to the tensors of a weight file."""

import torch

from db.errors import ModelError
from workers.models.key_map import KeyMap


def translated(weights: dict[str, torch.Tensor], keys: KeyMap) -> dict[str, torch.Tensor]:
    """The tensors under the names of the network.

    Raises:
        ModelError: two tensors get the same name.
    """
    found: dict[str, torch.Tensor] = {}
    rows = dict(keys.rows)
    for name, tensor in weights.items():
        new = keys.renamed(name)
        if new is None:
            continue
        if new in found:
            raise ModelError(f"Two tensors of the weight file are {new} of the network, one of them {name}.")
        kept = tensor.transpose(-1, -2) if new in keys.swaps else tensor
        found[new] = kept[: rows[new]] if new in rows else kept
    for parts, whole in keys.joins:
        for name in [name for name in found if name.endswith(parts[0])]:
            start = name.removesuffix(parts[0])
            if all(start + part in found for part in parts):
                found[start + whole] = torch.cat([found.pop(start + part) for part in parts])
    return found
