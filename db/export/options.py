"""What a caption is to look like, as a person says it. `db.export.captions` says in which order it is done."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from db.errors import SettingsError
from db.names import text_files

_KOHYAS_SHORT = 3
"""kohya's tagger leaves names of so many characters alone: `^_^`, but `long_hair` becomes `long hair`."""
_PAIR = 2
"""Columns of a file of alias lines."""


class Underscores(StrEnum):
    """What becomes of the underscores in a name."""

    SPACES = "spaces"
    """Spaces, but for the faces in `KAOMOJI`."""
    KEEP = "keep"
    KOHYA = "kohya"
    """Spaces in names of more than three characters, as kohya's tagger does."""


class Placement(StrEnum):
    """Where the tags of a category go that says one thing of an image, in several grades: `rating`, `quality`."""

    FIRST = "first"
    """Only the most probable one that is stored, whatever its threshold, before the other tags."""
    LAST = "last"
    """The same, behind them."""
    NONE = "none"
    """Nowhere: they are left out."""
    THRESHOLD = "threshold"
    """They are tags like all others."""


class Sort(StrEnum):
    """The order of tags that nothing else puts in a place."""

    SCORE = "score"
    """Falling; ties as in the model's list."""
    NAME = "name"
    """By character code, as the name is written."""
    LIST = "list"
    """As in the model's list."""
    SHUFFLE = "shuffle"
    """By a hash of seed, uri and tag: the same every time."""


KAOMOJI = frozenset({
    "0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3", "6_9", ">_o", "@_@", "^_^",
    "o_o", "u_u", "x_x", "|_|", "||_||",
})  # fmt: skip
"""Names whose underscores are part of a face: the list that the WD taggers' own scripts keep."""


@dataclass(frozen=True, slots=True)
class CaptionOptions:
    """How to write the tags of an image."""

    separator: str = ", "
    underscores: Underscores = Underscores.SPACES
    escape: bool = False
    """A backslash before ( and ), which prompts otherwise read as weights."""
    exclude: tuple[str, ...] = ()
    """Names, or patterns in which `*` stands for anything."""
    replace: tuple[tuple[str, str], ...] = ()
    """Old name, new name; an empty new name drops the tag. Of two rules for one name the later one counts."""
    expand_characters: bool = False
    """`name_(series)` of the category `character` becomes the two tags `name` and `series`."""
    first: tuple[str, ...] = ()
    """Names or patterns that go to the front when they are there, in this order."""
    prepend: tuple[str, ...] = ()
    """Written before everything, as they are, always."""
    append: tuple[str, ...] = ()
    """The same, behind everything."""
    category_order: tuple[str, ...] = ()
    """These categories first, in this order, then the others."""
    category_prefix: bool = False
    """`character:saber`; nothing for general tags and those without a category."""
    rating: Placement = Placement.NONE
    quality: Placement = Placement.NONE
    max_tags: int | None = None
    """So many of an image's tags: those of `first`, then the most probable ones. Fixed texts and tags placed first or
    last do not count."""
    sort: Sort = Sort.SCORE
    seed: int = 0
    """For the shuffle."""
    score_suffix: bool = False
    """`(tag:0.9123)`, the way prompts write weights."""

    @property
    def placements(self) -> dict[str, Placement]:
        """By category. Of two at the same end of a caption the earlier one here is nearer to that end."""
        return {"rating": self.rating, "quality": self.quality}

    @property
    def placed(self) -> list[str]:
        """The categories of which one tag goes first or last, in the order of `placements`."""
        return [name for name, where in self.placements.items() if where in {Placement.FIRST, Placement.LAST}]

    def differences(self, other: "CaptionOptions") -> dict[str, Any]:
        """What is said otherwise than in `other`, as JSON values."""
        return {name: _plain(getattr(self, name)) for name in changed(self, other)}


def changed(options: CaptionOptions, other: CaptionOptions) -> list[str]:
    """The names of the fields in which two differ."""
    return [field.name for field in fields(options) if getattr(options, field.name) != getattr(other, field.name)]


def plain_name(text: str) -> str:
    """The form in which names are compared: people write spaces for underscores."""
    return text.replace(" ", "_")


def styled(name: str, rule: Underscores) -> str:
    """A name with its underscores as the rule says."""
    kept = {
        Underscores.SPACES: name in KAOMOJI,
        Underscores.KEEP: True,
        Underscores.KOHYA: len(name) <= _KOHYAS_SHORT,
    }
    return name if kept[rule] else name.replace("_", " ")


def replacement(text: str) -> tuple[str, str]:
    """A rule `old=new`.

    Raises:
        SettingsError: it is none.
    """
    # From the right: `=_=` is a tag.
    old, equals, new = text.rpartition("=")
    if not equals or not old:
        raise SettingsError(f"--replace is OLD=NEW, as in grey_hair=gray_hair, not {text!r}.")
    return old, new


def read_replacements(path: Path) -> list[tuple[str, str]]:
    """The rules of a CSV file of lines `old,new`; empty lines and those that begin with # do not count.

    Raises:
        SettingsError: it cannot be read, or a line is no rule.
    """
    with text_files.opened(path, SettingsError, strict=True) as file:
        return list(_rules(path, file))


def _rules(path: Path, lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line, row in text_files.rows(lines, path, SettingsError, known=()):
        if row[0].startswith("#") or not any(row):
            continue
        if len(row) != _PAIR or not row[0].strip():
            raise SettingsError(f"--replace-from: line {line} of {path} is not `old,new`: {','.join(row)}")
        yield row[0].strip(), row[1].strip()


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
