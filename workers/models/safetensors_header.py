"""Reads the shapes of the tensors in a safetensors file, without torch and without reading the weights.

The format (https://huggingface.co/docs/safetensors): an unsigned 64-bit little-endian length, then that many bytes of
JSON `{name: {"dtype", "shape", "data_offsets"}}`, then the data. The key `__metadata__` is not a tensor.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from db.errors import ModelError

_LONGEST_HEADER = 100_000_000
"""In bytes; the limit of the safetensors library."""


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a weight file."""

    shapes: dict[str, tuple[int, ...]]
    """Name and shape of every tensor."""
    metadata: dict[str, str]
    """Texts of `__metadata__`; empty if the file has none."""


def read_header(path: Path) -> Header:
    """Name and shape of every tensor, and the metadata.

    Raises:
        ModelError: the file cannot be read, is not safetensors, or is shorter than its header states.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if start == b"version ":
                raise ModelError(f"{path} is a Git LFS pointer, not the weights. Run `git lfs pull` there.")
            length = struct.unpack("<Q", start)[0]
            if length > _LONGEST_HEADER:
                raise ModelError(f"{path} is not a safetensors file. Download it again.")
            header = json.loads(file.read(length))
        size = path.stat().st_size
        metadata = {str(key): str(value) for key, value in header.pop("__metadata__", {}).items()}
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is not a safetensors file, or is incomplete. Download it again.") from error
    if size < end:
        raise ModelError(f"{path} has {size:,} bytes and should have {end:,}. Download it again.")
    return Header(shapes, metadata)
