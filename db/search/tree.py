"""A query as plain data. `db.search.query` parses it, and `db.search.execute` compiles it to SQL."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from db.scores import NEVER


@dataclass(frozen=True, slots=True)
class Reaches:
    """One of the tags has low <= score < high. Without tags it is false for every image."""

    tag_ids: tuple[int, ...]
    lows: tuple[int, ...]
    """The lowest score of each tag, in ten-thousandths, parallel to `tag_ids`."""
    high: int = NEVER
    """For all tags, in ten-thousandths."""


@dataclass(frozen=True, slots=True)
class BestIn:
    """The tag that an image keeps of an exclusive group is one of some tags."""

    tag_ids: tuple[int, ...]
    group: Reaches
    """All tags of the group, with the lowest score of each."""


@dataclass(frozen=True, slots=True)
class Under:
    """The image's uri begins with a prefix."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Within:
    """A fact of the image lies in a range. It is false for an image of which the fact is not known."""

    fact: str
    """One of `db.search.facts.FACTS`."""
    low: Any
    """The first value, or None."""
    high: Any
    """The first value that is too high, or None."""
    exactly: bool = False
    """The fact equals `low` instead."""


@dataclass(frozen=True, slots=True)
class Not:
    part: "Node"


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple["Node", ...]


Node = Reaches | BestIn | Under | Within | Not | And | Or


def leaves(node: Node, *, positive: bool = True) -> Iterator[tuple[Reaches, bool]]:
    """The terms on tags, and whether each is below an even number of negations."""
    match node:
        case Reaches():
            yield node, positive
        case Not():
            yield from leaves(node.part, positive=not positive)
        case And() | Or():
            for part in node.parts:
                yield from leaves(part, positive=positive)
