"""The names of a model's tags in captions, computed once: a tag becomes no item, one, or two (name and series)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from db.arrays.csr import offsets_of
from db.arrays.types import Int64Array
from db.errors import SettingsError
from db.export.options import CaptionOptions, Placement, plain_name, styled
from db.ledger.models import Tag
from db.policy.policies import unknown_name

CHARACTER, COPYRIGHT, GENERAL = "character", "copyright", "general"
NAMESPACES: Mapping[str, str] = {}
"""Prefix by category, where it is not the name of the category."""

_EXPANDABLE = re.compile(r"(.+)[_ ]\(([^()]+)\)")
_LINE_ENDS = re.compile(r"[\r\n]+")


class _Zone(IntEnum):
    PINNED = 0
    FIRST = 1
    OTHERS = 2
    LAST = 3


@dataclass(frozen=True, slots=True)
class Items:
    """All that captions may hold, tag after tag."""

    texts: list[str]
    """As written, without the score."""
    categories: list[str | None]
    starts: Int64Array
    """(tags + 1,) tag t has the items from starts[t] to starts[t + 1]."""
    groups: Int64Array
    """(items,) lower groups come first in a caption, with any sort."""
    text_numbers: Int64Array
    """(items,) equal for equal texts, and in their order."""
    placed: npt.NDArray[np.bool_]
    """(items,) of a category that is placed first or last."""
    pinned: Int64Array
    """(items,) the position in `CaptionOptions.first`; for all others the length of that list."""


def make_items(tags: Sequence[Tag], options: CaptionOptions, namespaces: Mapping[str, str] = NAMESPACES) -> Items:
    """Apply the options to the tags of a model.

    Args:
        namespaces: prefix by category, where it is not the name of the category.

    Raises:
        SettingsError: the model lacks a category of `category_order`.
    """
    named = _named(tags, options)
    _check_categories(tags, options)
    texts, categories, counts, slots = [], [], [], []
    pinned, ends = _Wanted(options.first), _ends(options)
    for parts in named:
        counts.append(len(parts))
        for name, category, known_as in parts:
            texts.append(_written(name, category, options, namespaces))
            categories.append(category)
            slots.append(ends.get(category) or _slot(known_as, category, options, pinned))
    numbers = {text: number for number, text in enumerate(sorted(set(texts)))}
    dense = {slot: number for number, slot in enumerate(sorted(set(slots)))}
    return Items(
        texts,
        categories,
        offsets_of(counts),
        np.array([dense[slot] for slot in slots], dtype=np.int64),
        np.array([numbers[text] for text in texts], dtype=np.int64),
        np.array([zone in {_Zone.FIRST, _Zone.LAST} for zone, _ in slots], dtype=np.bool_),
        np.array(
            [position if zone is _Zone.PINNED else len(options.first) for zone, position in slots],
            dtype=np.int64,
        ),
    )


def one_line(text: str) -> str:
    """Without line ends: trainers read one line of a file."""
    return _LINE_ENDS.sub(" ", text)


def unique_names(tags: Sequence[Tag]) -> list[str]:
    """A distinct name for each tag: a blank or repeated one gets its number appended, as in `solo#17`."""
    names: dict[str, None] = {}
    for tag_id, tag in enumerate(tags):
        name = tag.name
        while not name.strip() or name in names:
            name += f"#{tag_id}"
        names[name] = None
    return list(names)


def _named(tags: Sequence[Tag], options: CaptionOptions) -> Iterator[list[tuple[str, str | None, list[str]]]]:
    """The parts of each tag: (name, category, all names that options may use for it)."""
    rules = {plain_name(old): new for old, new in options.replace}
    excluded = _Wanted(options.exclude)
    fixed = {plain_name(text) for text in (*options.prepend, *options.append)}
    nowhere = [category for category, placement in options.placements.items() if placement is Placement.NONE]
    for tag in tags:
        renamed = rules.get(plain_name(tag.name), tag.name)
        parts = [(renamed, tag.category)]
        if options.expand_characters and tag.category == CHARACTER and (found := _EXPANDABLE.fullmatch(renamed)):
            name, series = (rules.get(plain_name(part), part) for part in found.groups())
            parts = [(name, CHARACTER), (series, COPYRIGHT)]
        known = [(name, category, [plain_name(each) for each in (tag.name, renamed, name)]) for name, category in parts]
        dropped = tag.category in nowhere
        yield [
            (name, category, names)
            for name, category, names in known
            if name.strip() and not dropped and plain_name(name) not in fixed and excluded.position(names) is None
        ]


def _written(name: str, category: str | None, options: CaptionOptions, namespaces: Mapping[str, str]) -> str:
    text = one_line(styled(name, options.underscores))
    if options.category_prefix and category not in {None, GENERAL}:
        text = f"{namespaces.get(str(category), category)}:{text}"
    return text.replace("(", r"\(").replace(")", r"\)") if options.escape else text


def _ends(options: CaptionOptions) -> dict[str | None, tuple[int, int]]:
    """Slots of the placed categories, (zone, position): in the last zone in reverse order."""
    return {
        category: (_Zone.FIRST, number) if options.placements[category] is Placement.FIRST else (_Zone.LAST, -number)
        for number, category in enumerate(options.placed)
    }


def _slot(names: Sequence[str], category: str | None, options: CaptionOptions, pinned: "_Wanted") -> tuple[int, int]:
    """Slot of a tag that is not placed: (zone, position)."""
    if (position := pinned.position(names)) is not None:
        return _Zone.PINNED, position
    order = options.category_order
    return _Zone.OTHERS, order.index(category) if category in order else len(order)


class _Wanted:
    """Names and patterns of an option, in order."""

    def __init__(self, patterns: Sequence[str]) -> None:
        plain = [plain_name(pattern) for pattern in patterns]
        self._names = {name: position for position, name in reversed(list(enumerate(plain))) if "*" not in name}
        self._patterns = [
            (position, re.compile(".*".join(map(re.escape, name.split("*"))), re.DOTALL))
            for position, name in enumerate(plain)
            if "*" in name
        ]

    def position(self, names: Sequence[str]) -> int | None:
        """The position of the first one that matches one of these names; None without a match."""
        if not self._names and not self._patterns:
            return None
        found = [self._names[name] for name in names if name in self._names]
        found += [position for position, pattern in self._patterns if any(map(pattern.fullmatch, names))]
        return min(found, default=None)


def _check_categories(tags: Sequence[Tag], options: CaptionOptions) -> None:
    known = {tag.category for tag in tags if tag.category} | ({COPYRIGHT} if options.expand_characters else set())
    for category in options.category_order:
        if category not in known:
            raise SettingsError(f"--category-order: {unknown_name(category, known, 'category')}")
