"""Translates the names of tensors in a weight file to those of the network that they are loaded into."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeyMap:
    """Rules for the names of a weight file, applied in this order: drops, renames, swaps, rows, joins."""

    drops: tuple[str, ...] = ()
    """Regular expressions. A tensor whose whole name matches one is not loaded."""
    renames: tuple[tuple[str, str], ...] = ()
    """(regular expression, replacement), each applied to the names that the previous ones give (`re.sub`)."""
    swaps: tuple[str, ...] = ()
    """Names, after the renames, of tensors whose last two axes are exchanged."""
    rows: tuple[tuple[str, int], ...] = ()
    """(name after the renames, number of its first rows that are kept)."""
    joins: tuple[tuple[tuple[str, ...], str], ...] = ()
    """(ends of names, end of one name): these tensors are concatenated along the first axis, as q, k and v to qkv."""

    def renamed(self, name: str) -> str | None:
        """The name after drops and renames; None if the tensor is dropped."""
        if any(re.fullmatch(pattern, name) for pattern in self.drops):
            return None
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name


AS_IS = KeyMap()
"""The names of the file are those of the network."""
