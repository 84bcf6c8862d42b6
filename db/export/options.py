"""The options of captions. `db.export.captions` defines the order in which they apply."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from db.errors import SettingsError
from db.names import text_files

_KOHYAS_SHORT = 3
"""kohya's tagger keeps the underscores of names up to this many characters: `^_^`, but `long hair`."""
_PAIR = 2
"""Columns of a file of rules."""


class Underscores(StrEnum):
    """What replaces the underscores in a name."""

    SPACES = "spaces"
    """Spaces, except in the faces of `KAOMOJI`."""
    KEEP = "keep"
    KOHYA = "kohya"
    """Spaces in names of more than three characters, as kohya's tagger does."""


class Placement(StrEnum):
    """Where the tags of a graded category go, of which an image has one: `rating`, `quality`."""

    FIRST = "first"
    """Only the most probable stored one, at any threshold, before the other tags."""
    LAST = "last"
    """The same, after the other tags."""
    NONE = "none"
    """They are left out."""
    THRESHOLD = "threshold"
    """Like all other tags."""


class Sort(StrEnum):
    """The order of tags within a group (`db.export.captions`, step 8)."""

    SCORE = "score"
    """Falling; ties as in the model's list."""
    NAME = "name"
    """By character code, as the name is written."""
    LIST = "list"
    """As in the model's list."""
    SHUFFLE = "shuffle"
    """By a hash of seed, uri and tag: reproducible."""


KAOMOJI = frozenset({
    "0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3", "6_9", ">_o", "@_@", "^_^",
    "o_o", "u_u", "x_x", "|_|", "||_||",
})  # fmt: skip
"""Names whose underscores are part of a face: the list in the WD taggers' own scripts."""


@dataclass(frozen=True, slots=True)
class CaptionOptions:
    """How to write the tags of an image."""

    separator: str = ", "
    underscores: Underscores = Underscores.SPACES
    escape: bool = False
    """A backslash before ( and ), which prompts otherwise read as weights."""
    exclude: tuple[str, ...] = ()
    """Names, or patterns in which `*` matches any text."""
    replace: tuple[tuple[str, str], ...] = ()
    """(old name, new name); an empty new name drops the tag. Of two rules for a name the later one applies."""
    expand_characters: bool = False
    """`name_(series)` of the category `character` becomes the two tags `name` and `series`."""
    first: tuple[str, ...] = ()
    """Names or patterns of tags that go to the front, in this order."""
    prepend: tuple[str, ...] = ()
    """Fixed texts before everything."""
    append: tuple[str, ...] = ()
    """Fixed texts after everything."""
    category_order: tuple[str, ...] = ()
    """These categories first, in this order, then the others."""
    category_prefix: bool = False
    """`character:saber`; nothing for general tags and those without a category."""
    rating: Placement = Placement.NONE
    quality: Placement = Placement.NONE
    max_tags: int | None = None
    """At most this many tags an image: those of `first`, then the most probable ones. Fixed texts and tags placed first
    or last are not counted."""
    sort: Sort = Sort.SCORE
    seed: int = 0
    """For the shuffle."""
    score_suffix: bool = False
    """`(tag:0.9123)`, as prompts write weights."""

    @property
    def placements(self) -> dict[str, Placement]:
        """By category. Of two at the same end of a caption the earlier one is nearer to that end."""
        return {"rating": self.rating, "quality": self.quality}

    @property
    def placed(self) -> list[str]:
        """The categories of which one tag goes first or last, in the order of `placements`."""
        return [name for name, where in self.placements.items() if where in {Placement.FIRST, Placement.LAST}]

    def differences(self, other: "CaptionOptions") -> dict[str, Any]:
        """The options that differ from `other`, as JSON values."""
        return {name: _plain(getattr(self, name)) for name in changed(self, other)}


def changed(options: CaptionOptions, other: CaptionOptions) -> list[str]:
    """The names of the fields in which two differ."""
    return [field.name for field in fields(options) if getattr(options, field.name) != getattr(other, field.name)]


def plain_name(text: str) -> str:
    """The form in which names are compared: options may have spaces for underscores."""
    return text.replace(" ", "_")


def styled(name: str, rule: Underscores) -> str:
    """A name with its underscores as the rule says."""
    keep = {
        Underscores.SPACES: name in KAOMOJI,
        Underscores.KEEP: True,
        Underscores.KOHYA: len(name) <= _KOHYAS_SHORT,
    }
    return name if keep[rule] else name.replace("_", " ")


def replacement(text: str) -> tuple[str, str]:
    """The rule `old=new`.

    Raises:
        SettingsError: it is not of that form.
    """
    # From the right: `=_=` is a tag.
    old, equals, new = text.rpartition("=")
    if not equals or not old:
        raise SettingsError(f"--replace is OLD=NEW, as in grey_hair=gray_hair, not {text!r}.")
    return old, new


def read_replacements(path: Path) -> list[tuple[str, str]]:
    """The rules of a CSV file of lines `old,new`; empty lines and those that begin with # are skipped.

    Raises:
        SettingsError: the file cannot be read, or a line has another form.
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
