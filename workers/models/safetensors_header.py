"""Reads the shapes of the tensors in a safetensors file, and tensors of integers, without torch.

The format (https://huggingface.co/docs/safetensors): an unsigned 64-bit little-endian length, then that many bytes of
JSON `{name: {"dtype", "shape", "data_offsets"}}`, then the data. The key `__metadata__` is not a tensor.
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from db.arrays.types import Int64Array
from db.errors import ModelError

_INTEGERS = {"I8": "i1", "U8": "u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8"}
"""The types of integers that fit into 64 bits, as numpy names them."""
_LONGEST_HEADER = 100_000_000
"""In bytes; the limit of the safetensors library."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor is in the file."""

    dtype: str
    """As the format names it."""
    shape: tuple[int, ...]
    begin: int
    """In bytes, from the beginning of the data; so is the end."""
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a weight file."""

    entries: dict[str, Entry]
    """Every tensor by name."""
    metadata: dict[str, str]
    """Texts of `__metadata__`; empty if the file has none."""
    size: int
    """Bytes before the data."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor."""
        return {name: entry.shape for name, entry in self.entries.items()}


def read_header(path: Path) -> Header:
    """Name, type and shape of every tensor, and the metadata.

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
        entries = {
            name: Entry(entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"]) for name, entry in header.items()
        }
        end = 8 + length + max((entry.end for entry in entries.values()), default=0)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is not a safetensors file, or is incomplete. Download it again.") from error
    if size < end:
        raise ModelError(f"{path} has {size:,} bytes and should have {end:,}. Download it again.")
    return Header(entries, metadata, 8 + length)


def read_integers(path: Path, name: str) -> Int64Array:
    """A tensor of integers, in its shape.

    Raises:
        ModelError: as with `read_header`; there is no such tensor, or its type is not one of integers.
    """
    header = read_header(path)
    entry = header.entries.get(name)
    kind = None if entry is None else _INTEGERS.get(entry.dtype)
    if entry is None or kind is None:
        found = "missing" if entry is None else f"of type {entry.dtype}"
        raise ModelError(f"{path}: the tensor {name} should hold integers, and is {found}.")
    with path.open("rb") as file:
        file.seek(header.size + entry.begin)
        data = file.read(entry.end - entry.begin)
    if len(data) != math.prod(entry.shape) * np.dtype(kind).itemsize:
        raise ModelError(f"{path}: the tensor {name} has {len(data):,} bytes, which its shape {entry.shape} does not.")
    return np.frombuffer(data, dtype=kind).reshape(entry.shape).astype(np.int64)
