"""Look up tags and categories: by exact spelling first, then ignoring case and taking spaces for underscores."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from db.ledger.models import Tag

WILDCARD = "*"


class Vocabulary:
    """The tags and categories of a model, by name. Tag ids are returned in ascending order; empty names are skipped.

    Args:
        tags: the model's tags, by output position.
    """

    def __init__(self, tags: Sequence[Tag]) -> None:
        self._names = _by_spelling((tag.name, tag_id) for tag_id, tag in enumerate(tags))
        self._categories = _by_spelling((tag.category or "", tag_id) for tag_id, tag in enumerate(tags))

    @property
    def names(self) -> list[str]:
        """The names of the tags, in the model's spelling."""
        return list(self._names[0])

    @property
    def categories(self) -> list[str]:
        return list(self._categories[0])

    def find(self, name: str) -> tuple[int, ...]:
        """The ids of the tags of that name; several if the model has it twice, or has names that differ in case."""
        return _look_up(self._names, name)

    def in_category(self, name: str) -> tuple[int, ...]:
        """The ids of the tags of a category."""
        return _look_up(self._categories, name)

    def matching(self, pattern: str) -> tuple[int, ...]:
        """The ids of the tags whose whole name matches; `*` matches any text, also none."""
        for names, spelling in zip(self._names, (pattern, folded_name(pattern)), strict=True):
            parts = spelling.split(WILDCARD)
            if found := [tag_id for name, tag_ids in names.items() if _fits(parts, name) for tag_id in tag_ids]:
                return tuple(sorted(found))
        return ()


_Spelled = tuple[Mapping[str, Sequence[int]], Mapping[str, Sequence[int]]]
"""Tag ids by exact name, and by folded name."""


def _by_spelling(pairs: Iterable[tuple[str, int]]) -> _Spelled:
    exact: dict[str, list[int]] = defaultdict(list)
    folded: dict[str, list[int]] = defaultdict(list)
    for name, tag_id in pairs:
        if name:
            exact[name].append(tag_id)
            folded[folded_name(name)].append(tag_id)
    return dict(exact), dict(folded)


def _look_up(spelled: _Spelled, name: str) -> tuple[int, ...]:
    exact, folded = spelled
    return tuple(exact.get(name) or folded.get(folded_name(name), ()))


def folded_name(name: str) -> str:
    """Normalise a name for comparison: case, spaces for underscores, composition of accents (NFC)."""
    return unicodedata.normalize("NFC", name.casefold()).replace(" ", "_")


def _fits(parts: Sequence[str], name: str) -> bool:
    """Match a pattern, split at its wildcards. Each middle part is matched at its first occurrence: linear time."""
    first, *middle, last = parts
    position, end = len(first), len(name) - len(last)
    if position > end or not name.startswith(first) or not name.endswith(last):
        return False
    for part in middle:
        found = name.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True
