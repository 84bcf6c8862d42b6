"""Reads the tag lists that come with ONNX taggers.

    selected_tags.csv, tags-selected.csv   as `workers.models.tag_files`; the second one is of e621
    tag_mapping.json                       {index: {"tag", "category"}}, cl_tagger
    model_vocabulary.json                  {"idx_to_tag": {index: tag}, "tag_to_category": {tag: category}}, cl_tagger 2
    *-metadata.json                        the same in `dataset_info.tag_mapping`, Camie
    tags.json                              {"categories": [{"name", "offset", "count", "tags"}]}, PixAI v1.0
    config.json                            {"tags": [tag], "tags_split": [[category, count]]}, PixAI v1.0
    class.json                             {index: tag}, ML-Danbooru
    tags.txt                               a tag a line, DeepDanbooru

Category names are in lower case.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from db.errors import ModelError
from db.ledger.models import Tag
from db.names import text_files
from workers.models.tag_files import E621_CATEGORIES, csv_rows, read_json, read_tags, refuse_duplicates

WD_LIST, E621_LIST = "selected_tags.csv", "tags-selected.csv"
MAPPING, VOCABULARY, METADATA = "tag_mapping.json", "model_vocabulary.json", "*-metadata.json"
CLASSES, LINES, INDEX, CONFIG = "class.json", "tags.txt", "tags.json", "config.json"
TAG_FILES = (WD_LIST, E621_LIST, MAPPING, VOCABULARY, METADATA, CLASSES, INDEX, LINES, CONFIG)
"""Names of tag lists, in the order of the search."""

E621_RATINGS = frozenset({"safe", "questionable", "explicit"})
"""Names of the ratings of e621. Danbooru has four others, of which it shares two."""
RATING_TAGS = ("rating:safe", "rating:questionable", "rating:explicit")
"""Names of the ratings in the list of DeepDanbooru."""
_RATING = "9"
"""Category of ratings in the lists of the WD taggers."""


def find_tag_file(folder: Path) -> Path | None:
    """The tag list of a folder; None if it has none."""
    for name in TAG_FILES:
        for path in sorted(folder.glob(name)):
            if name != CONFIG or is_pixai_config(path):
                return path
    return None


def is_pixai_config(path: Path) -> bool:
    """Whether a config.json has the tags of PixAI v1.0."""
    content = read_json(path)
    return isinstance(content, dict) and {"tags", "tags_split"} <= content.keys()


def read_onnx_tags(path: Path) -> tuple[Tag, ...]:
    """The tags of a list, by output position.

    Raises:
        ModelError: the list is empty, has gaps or duplicates, or has another format.
    """
    if path.suffix == ".csv":
        return _selected(path)
    tags = _lines(path) if path.suffix == ".txt" else _json(path)
    if not tags:
        raise ModelError(f"{path} lists no tags. Download it again.")
    refuse_duplicates(path, [tag.name for tag in tags if tag.name])
    return tags


def _selected(path: Path) -> tuple[Tag, ...]:
    tags = read_tags(path)
    numbers = [row.get("category") for row in csv_rows(path)]
    ratings = {tag.name for tag, number in zip(tags, numbers, strict=True) if number == _RATING}
    if path.name != E621_LIST and ratings != E621_RATINGS:
        return tags
    return tuple(
        Tag(tag.name, E621_CATEGORIES.get(number or "", tag.category))
        for tag, number in zip(tags, numbers, strict=True)
    )


def _lines(path: Path) -> tuple[Tag, ...]:
    names = text_files.read_text(path, ModelError).splitlines()
    return tuple(Tag(name.strip(), "rating" if name.strip() in RATING_TAGS else None) for name in names)


def _json(path: Path) -> tuple[Tag, ...]:
    content = read_json(path)
    try:
        found = _tags(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{path} is not a tag list of a known form ({type(error).__name__}: {error}). docs/models.md has the forms."
        ) from error
    return read_tags(path) if found is None else tuple(Tag(str(name), category) for name, category in found)


Named = Sequence[tuple[str, str | None]]
"""Names and categories by output position."""


def _tags(content: Any) -> Named | None:
    """None: an object from tag to index, of which `read_tags` reports the defects."""
    if isinstance(content, list):
        return [(_name(one), None) for one in content]
    mapping = content.get("dataset_info", {}).get("tag_mapping", content)
    if "idx_to_tag" in mapping:
        names = mapping["idx_to_tag"]
        categories = {tag: category.lower() for tag, category in mapping.get("tag_to_category", {}).items()}
        return [
            (_name(name), categories.get(name)) for name in (names if isinstance(names, list) else _in_order(names))
        ]
    if "tags_split" in content or isinstance(content.get("categories"), list):
        return _pixai(content)
    entries: Sequence[Any] = _in_order(content) if content and all(key.isdecimal() for key in content) else [0]
    if isinstance(entries[0], dict):
        return [(_name(entry["tag"]), entry["category"].lower()) for entry in entries]
    return None if isinstance(entries[0], int) else [(_name(entry), None) for entry in entries]


def _pixai(content: Mapping[str, Any]) -> Named:
    """Consecutive categories, each with its number of tags."""
    if "tags_split" in content:
        names, parts = content["tags"], [(str(name), int(count)) for name, count in content["tags_split"]]
    else:
        names = [name for part in content["categories"] for name in part["tags"]]
        parts = [(part["name"], len(part["tags"])) for part in content["categories"]]
        stated = [(part["offset"], part["count"]) for part in content["categories"]]
        ends = accumulate(count for _name_of, count in parts)
        if stated != [(end - count, count) for end, (_name_of, count) in zip(ends, parts, strict=True)]:
            raise ValueError("offset and count of its categories do not follow from their tags")
    categories = [name.lower() for name, count in parts for _ in range(count)]
    return [(_name(name), category) for name, category in zip(names, categories, strict=True)]


def _in_order(entries: Mapping[str, Any]) -> Sequence[Any]:
    """The values of {index: value} by index."""
    if sorted(map(int, entries)) != list(range(len(entries))):
        raise ValueError(f"its indices are not 0 to {len(entries) - 1}, each once")
    return [entries[key] for key in sorted(entries, key=int)]


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a name")
    return value
