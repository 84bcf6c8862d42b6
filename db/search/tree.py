"""A query as plain data: what `db.search.query` reads and `db.search.execute` asks."""

from dataclasses import dataclass

from db.scores import NEVER


@dataclass(frozen=True, slots=True)
class Reaches:
    """One of the tags has low <= score < high. Without tags it is true of nothing."""

    tag_ids: tuple[int, ...]
    lows: tuple[int, ...]
    """Scores, in step with `tag_ids`."""
    high: int = NEVER


@dataclass(frozen=True, slots=True)
class Under:
    """The image's uri begins with this."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Not:
    part: "Node"


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple["Node", ...]


Node = Reaches | Under | Not | And | Or
