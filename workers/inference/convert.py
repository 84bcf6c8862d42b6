"""Converts a pickled checkpoint to safetensors, without running what the pickle holds.

`torch.load(weights_only=True)` builds tensors and plain containers only, and refuses everything else
(https://docs.pytorch.org/docs/stable/notes/serialization.html).
"""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.serialization import get_unsafe_globals_in_checkpoint

from db.errors import ModelError

KEYS = ("model", "state_dict")
"""Under these keys, trainers store the tensors beside an optimiser and an epoch."""
_REFUSED = re.compile(r"GLOBAL ([\w.]+)")


@dataclass(frozen=True, slots=True)
class Converted:
    """What a checkpoint held."""

    tensors: int
    parameters: int
    left_out: tuple[str, ...]
    """Keys without a tensor."""


def convert(source: Path, target: Path) -> Converted:
    """Write the tensors of a pickled checkpoint under their names.

    Raises:
        ModelError: the file is not a checkpoint of torch, holds no tensors, or wants to run code.
    """
    tensors, left_out = _tensors(source, _loaded(source))
    try:
        save_file(tensors, target)
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"The tensors of {source} cannot be stored as safetensors: {error}") from error
    return Converted(len(tensors), sum(tensor.numel() for tensor in tensors.values()), left_out)


def _loaded(source: Path) -> Any:
    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{source} cannot be read: {error.strerror or error}.") from error
    except pickle.UnpicklingError as error:
        wanted = _wanted(source, str(error))
        if not wanted:
            raise ModelError(f"{source} is not a checkpoint of torch, or is incomplete. Download it again.") from error
        raise ModelError(
            f"{source} holds more than tensors: opening it would run {', '.join(wanted)}. It was not opened. Where "
            "that code is installed and trusted, save the tensors alone: torch.save(model.state_dict(), FILE)."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(f"{source} is not a checkpoint of torch, or is incomplete. Download it again.") from error


def _wanted(source: Path, message: str) -> list[str]:
    """The functions and classes that a pickle refers to besides those of tensors."""
    try:
        return sorted(get_unsafe_globals_in_checkpoint(source))
    except ValueError:  # the format before torch 1.6, of which only the first one is known
        return _REFUSED.findall(message)[:1]


def _tensors(source: Path, loaded: Any) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    for key in KEYS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    entries = dict(loaded) if isinstance(loaded, Mapping) else {}
    found = {str(name): value for name, value in entries.items() if isinstance(value, torch.Tensor)}
    if not found:
        keys = f"It has the keys {', '.join(map(str, entries))[:200]}." if entries else f"It is a {type(loaded)}."
        raise ModelError(f"{source} has no tensors by name, there or under {' or '.join(KEYS)}. {keys}")
    # safetensors refuses tensors that share memory, as a tied weight does, and such that are not contiguous.
    storages: set[int] = set()
    for name, tensor in found.items():
        place = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone(memory_format=torch.contiguous_format) if place in storages else tensor.contiguous()
        storages.add(place)
    return found, tuple(str(name) for name in entries if str(name) not in found)
