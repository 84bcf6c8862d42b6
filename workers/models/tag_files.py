"""Reads tag lists: which output of a model is which tag.

    tags.json, tagger_tags.json   {tag: index}                          the value is the output position
    selected_tags.csv             tag_id,name,category,count[,...]      the row is the output position
    categories.json               [{category, name}]                    names of the categories of selected_tags.csv
    config.json of timm           label_names, or the older labels      the position is the output position

A list that is off by one line gives plausible but wrong tags for every image, so all that can be checked is checked.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from db.errors import ModelError
from db.ledger.models import Tag
from db.names import text_files

TAG_FILES = ("selected_tags.csv", "tags.json", "tagger_tags.json")
"""Names of tag lists, in the order of the search."""

RATINGS = ("general", "sensitive", "questionable", "explicit")
"""The first four rows of the list of a WD tagger, with category 9."""

_CATEGORIES = {"0": "general", "1": "artist", "3": "copyright", "4": "character", "5": "meta", "9": "rating"}
"""Categories by their number in Danbooru; 9 is used by the WD taggers."""

E621_CATEGORIES = {
    "0": "general",
    "1": "artist",
    "2": "contributor",
    "3": "copyright",
    "4": "character",
    "5": "species",
    "6": "invalid",
    "7": "meta",
    "8": "lore",
}
"""Categories by their number in e621."""

_COLUMNS = {"tag_id", "name", "category", "count"}

_SHOWN = 3
"""Values that an error names, at most."""


def read_json(path: Path) -> Any:
    """The content of a JSON file, whose objects must not repeat keys.

    Raises:
        ModelError: the file cannot be read, is not JSON, or repeats a key.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        refuse_duplicates(path, [key for key, _ in pairs])
        return dict(pairs)

    try:
        return json.loads(text_files.read_text(path, ModelError), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON ({error}). Download it again.") from error


def read_tags(path: Path) -> tuple[Tag, ...]:
    """The tags of a list, by output position. A `.csv` is read as `selected_tags.csv`, any other file as `tags.json`.

    Raises:
        ModelError: the list is empty, has gaps or duplicates, or has another format.
    """
    return read_selected_tags(path) if path.suffix.lower() == ".csv" else read_tag_index(path)


def read_tag_index(path: Path) -> tuple[Tag, ...]:
    """The tags of `{tag: index}` by index, where the indices must be 0..n-1. Raises ModelError as `read_tags`."""
    return tuple(Tag(name) for name in positions(path, read_json(path)))


def positions(path: Path, content: Any) -> list[str]:
    """The keys of `{name: index}` by index. Raises ModelError as `read_tags`."""
    if not isinstance(content, dict) or not content:
        raise ModelError(f"{path} must be one JSON object that maps each tag to its output index.")
    for name, index in content.items():
        if type(index) is not int:
            raise ModelError(f"{path}: the index of {name!r} is {index!r}, not a whole number.")
    refuse_duplicates(path, list(content.values()))
    missing = sorted(set(range(len(content))) - set(content.values()))
    if missing:
        raise ModelError(
            f"{path} has {len(content)} tags and none at index {_some(missing)}; indices must run from 0 "
            f"to {len(content) - 1}. The file is incomplete: download it again."
        )
    return sorted(content, key=content.__getitem__)


def read_selected_tags(path: Path) -> tuple[Tag, ...]:
    """The tags of a `selected_tags.csv`: a header with `name` and maybe `category`, then a row for each output.

    Raises ModelError as `read_tags`.
    """
    rows = csv_rows(path)
    if not rows:
        raise ModelError(f"{path} lists no tags. Download it again.")
    # In a row that is too short, as in a truncated file, name is None.
    short = [number for number, row in enumerate(rows, start=2) if row["name"] is None]
    if short:
        raise ModelError(f"{path}: row {_some(short)} has no name column. The file is incomplete.")
    names = _category_names(path.with_name("categories.json"))
    tags = tuple(Tag(row["name"], _category(row.get("category"), names)) for row in rows)
    refuse_duplicates(path, [tag.name for tag in tags if tag.name])
    return tags


def read_label_names(path: Path, config: Mapping[str, Any]) -> tuple[Tag, ...] | None:
    """The labels in timm's `config.json`, a list or a map from position to name; None if it has none.

    Raises:
        ModelError: they are neither, or not unique.
    """
    inner = config.get("pretrained_cfg") or {}
    for labels in (config.get("label_names"), inner.get("label_names"), config.get("labels")):
        if labels:
            break
    else:
        return None
    if isinstance(labels, dict):
        if sorted(labels) != sorted(str(position) for position in range(len(labels))):
            raise ModelError(f"{path}: label_names should have the keys 0 to {len(labels) - 1}, each once.")
        labels = [labels[str(position)] for position in range(len(labels))]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ModelError(f"{path}: label_names should be a list of names or a map from position to name.")
    refuse_duplicates(path, [label for label in labels if label])
    return tuple(Tag(label) for label in labels)


def is_wd_list(path: Path) -> bool:
    """Whether a tag list is that of a WD tagger: exactly its four columns, and the four ratings first."""
    if not path.is_file():
        return False
    rows = csv_rows(path)[: len(RATINGS)]
    first = tuple((row["name"], row.get("category")) for row in rows)
    return has_wd_columns(path) and first == tuple((name, "9") for name in RATINGS)


def has_wd_columns(path: Path) -> bool:
    """Whether a tag list has exactly the four columns of the WD taggers.

    Lists of other trainers have more columns, such as best_threshold; their preprocessing differs.
    """
    rows = csv_rows(path)[:1]
    return bool(rows) and set(rows[0]) == _COLUMNS


def csv_rows(path: Path, name: str = "name", known: Collection[str] = _COLUMNS) -> list[dict[str, Any]]:
    """Rows of a table by column name; missing cells are None.

    Args:
        path: of the file, whose first line has the names of columns.
        name: the column that must be there.
        known: columns that files of this kind have, from which the separator is recognised.

    Raises:
        ModelError: the file cannot be read, or lacks the column.
    """
    with text_files.opened(path, ModelError, strict=True) as file:
        table = text_files.rows(file, path, ModelError, known=known)
        _, header = next(table, (0, []))
        if name not in header:
            raise ModelError(f"{path} must begin with a line of column names that contains `{name}`.")
        # Missing cells of a short row are None; extra cells of a long one are dropped.
        return [dict(zip_longest(header, row[: len(header)])) for _, row in table]


def _category_names(path: Path) -> Mapping[str, str]:
    """Names of categories by their number: those in `categories.json`, else those of Danbooru."""
    if not path.is_file():
        return _CATEGORIES
    try:
        return {str(one["category"]): str(one["name"]) for one in read_json(path)}
    except (KeyError, TypeError) as error:
        raise ModelError(f"{path} should be a list of objects with `category` and `name`.") from error


def _category(text: str | None, names: Mapping[str, str]) -> str | None:
    if not text:
        return None
    return names.get(text, f"category_{text}" if text.isdecimal() else text)


def refuse_duplicates(path: Path, values: Sequence[str | int]) -> None:
    """Refuse a list that has a value more than once. Raises ModelError."""
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ModelError(f"{path} has {_some(twice)} more than once, so it does not say which output is which.")


def _some(values: Sequence[Any]) -> str:
    shown = ", ".join(repr(value) for value in values[:_SHOWN])
    return shown if len(values) <= _SHOWN else f"{shown} and {len(values) - _SHOWN} more"
