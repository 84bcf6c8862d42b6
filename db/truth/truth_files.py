r"""Read the files in which people keep the tags of images.

a folder          sidecars: `cat.txt` or `cat.jpg.txt`; tags separated by commas or lines
.jsonl, .ndjson   an object per line; the image under one of `REFERENCES`, the tags under one of `TAGS`
.json             a list of such objects, alone or under one key; or an object by image, as kohya's scripts write
.csv, .tsv        a column for the image, one of `REFERENCES`, and for the tags either one of `TAGS` (a row per image)
                  or `tag` (a row per tag); without a header: the image (or its md5 or sha256), then a tag, or all
                  tags in quotes. The separator is detected

Tags are a list, an object whose keys are tags, an object of lists by category, or a text separated by commas; in
tag_string they are separated by spaces, as boorus write them. Gzip (`.gz`) and every encoding of `db.names.text_files`
are read. Relative paths start at the folder of the file.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from db.errors import SourceError
from db.names import text_files
from db.names.folders import files_below
from db.names.match_images import ImageName, by_md5, by_path, by_sha256
from db.names.spellings import COLUMNS

REFERENCES = (*COLUMNS, "sha256", "md5")
TAGS = ("tags", "caption", "text", "tag_string")
TAG = "tag"
SIDECAR = ".txt"

_MD5 = re.compile("[0-9a-fA-F]{32}")
_SHA256 = re.compile("[0-9a-fA-F]{64}")
_BETWEEN = re.compile(r"[,\r\n]")


@dataclass(frozen=True, slots=True)
class Entry:
    """An image and its tags, from one place in a file."""

    reference: ImageName
    tags: list[str] | None
    """As written; None if they cannot be read."""
    loose: frozenset[str] = frozenset()
    """Those tags that are several words without a comma: they may be tags separated by spaces."""


def read_entries(source: Path) -> Iterator[Entry]:
    """Yield the entries of a folder or file, in its order. An image may occur more than once.

    Raises:
        SourceError: the source does not exist, cannot be read, or has another format; some are raised while iterating.
    """
    if source.is_dir():
        return _sidecars(source)
    suffix = next((one for one in reversed(source.suffixes) if one != ".gz"), "").lower()
    if suffix in {".jsonl", ".ndjson"}:
        return _lines(source)
    if suffix == ".json":
        return _document(source)
    if suffix in {".csv", ".tsv"}:
        return _table(source, "\t" if suffix == ".tsv" else ",")
    if not source.exists():
        raise SourceError(
            f"There is no {source}. Give a folder of captions, a .jsonl or a .csv file, `beside` or `labels`."
        )
    raise SourceError(
        f"{source}: true tags are read from a folder of .txt files, or a .jsonl, .json, .csv or .tsv file."
    )


def split_caption(text: str) -> list[str]:
    """Split a text into tags at commas and line ends."""
    return [tag for part in _BETWEEN.split(text) if (tag := part.strip())]


def read_sidecar(path: Path, reference: ImageName) -> Entry:
    """Read a caption file. The tags are None if it cannot be read as text."""
    try:
        data = path.read_bytes()
        try:
            text, _ = text_files.decode(data)
        except UnicodeDecodeError:
            if text_files.encoding_of(data).codec != "utf-8":
                return Entry(reference, None)
            text = data.decode("utf-8", "surrogateescape")
    except OSError:
        return Entry(reference, None)
    return Entry(reference, None) if "\0" in text else _entry(reference, text, TAGS[0])


def _sidecars(folder: Path) -> Iterator[Entry]:
    below = os.fspath(folder)
    names = [os.path.relpath(file.path, below) for file in files_below(below) if file.name.lower().endswith(SIDECAR)]
    for name in sorted(names):
        # `cat` and `cat.jpg` both name the image cat.jpg.
        yield read_sidecar(folder / name, by_path(name[: -len(SIDECAR)], folder))
    if not names:
        raise SourceError(f"{folder} holds no {SIDECAR} files.")


def _lines(file: Path) -> Iterator[Entry]:
    with text_files.opened(file, SourceError, lines=True) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{file}, line {number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise SourceError(f"{where}: not JSON ({error}).") from error
            yield _of_object(record, where, file)


def _of_object(record: Any, where: str, file: Path) -> Entry:
    if not isinstance(record, dict):
        raise SourceError(f"{where}: not a JSON object.")
    name = next((one for one in REFERENCES if record.get(one)), None)
    tags = _tags_key(record)
    if name is None or tags is None:
        raise SourceError(
            f"{where}: needs an image under one of {', '.join(REFERENCES)}, and tags under one of "
            f"{', '.join(TAGS)}; it has {', '.join(record) or 'nothing'}."
        )
    return _entry(_reference(name, str(record[name]), file), record[tags], tags)


def _tags_key(record: dict[str, Any]) -> str | None:
    return next((one for one in TAGS if record.get(one) is not None), None)


def _document(file: Path) -> Iterator[Entry]:
    with text_files.opened(file, SourceError) as lines:
        text = lines.read()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        if "Extra data" in str(error):  # JSON lines under another name
            yield from _lines(file)
            return
        raise SourceError(f"{file} is not JSON ({error}).") from error
    if isinstance(content, dict):
        # Gelbooru has its posts under `post`, beside their number.
        lists = [
            value for value in content.values() if isinstance(value, list) and value and isinstance(value[0], dict)
        ]
        content = lists[0] if len(lists) == 1 else [content] if _tags_key(content) else content
    if isinstance(content, list):
        for number, record in enumerate(content, start=1):
            yield _of_object(record, f"{file}, object {number}", file)
    elif isinstance(content, dict):
        yield from _by_image(content, file)
    else:
        raise SourceError(f"{file}: neither a list nor an object.")


def _by_image(content: dict[str, Any], file: Path) -> Iterator[Entry]:
    """`{"1.jpg": {"tags": "a, b"}}`, or with the tags in place of the object."""
    for image, record in content.items():
        tags = _tags_key(record) if isinstance(record, dict) else TAGS[0]
        if tags is None or not isinstance(record, dict | list | str):
            raise SourceError(f"{file}, {image!r}: needs tags, or an object with tags under one of {', '.join(TAGS)}.")
        yield _entry(by_path(image, file.parent), record[tags] if isinstance(record, dict) else record, tags)


def _table(file: Path, usual: str) -> Iterator[Entry]:
    with text_files.opened(file, SourceError) as lines:
        known = {*REFERENCES, TAG, *TAGS}
        table = text_files.rows(lines, file, SourceError, known=known, usual=usual)
        number, first = next(table, (0, None))
        if first is None:
            return
        header = [cell.strip().lower() for cell in first]
        name = next((one for one in REFERENCES if one in header), None)
        tags = next((one for one in (TAG, *TAGS) if one in header), None)
        if name is None and tags is None:
            image_at, tags_at, name, tags = 0, 1, _kind(first[0]), TAGS[0]
            table = chain([(number, first)], table)
        elif name is None or tags is None:
            raise SourceError(
                f"{file} has the columns {', '.join(header)}. It needs an image in one of {', '.join(REFERENCES)}, and "
                f"its tags in one of {', '.join(TAGS)}, or a tag per row in {TAG}."
            )
        else:
            image_at, tags_at = header.index(name), header.index(tags)
        complete = _complete(file, table, max(image_at, tags_at))
        # Consecutive rows of an image are one entry, so that the image is looked up once.
        for text, group in groupby(complete, key=lambda row: row[image_at]):
            reference = _reference(name, text, file)
            cells = [row[tags_at] for row in group]
            if tags == TAG:
                yield Entry(reference, [tag for cell in cells if (tag := cell.strip())])
                continue
            parts = [_entry(reference, cell, tags) for cell in cells]
            yield Entry(
                reference,
                [tag for part in parts for tag in part.tags or ()],
                frozenset().union(*(part.loose for part in parts)),
            )


def _complete(file: Path, rows: Iterator[text_files.Row], last: int) -> Iterator[list[str]]:
    for number, row in rows:
        if not any(row):
            continue  # spreadsheets write ;;; for rows that were cleared
        if len(row) <= last:
            raise SourceError(f"{file}, line {number}: too few columns. The file is incomplete.")
        yield row


def _kind(text: str) -> str:
    """The column to which a value without a header belongs."""
    if _SHA256.fullmatch(text.strip()):
        return "sha256"
    return "md5" if _MD5.fullmatch(text.strip()) else "path"


def _reference(column: str, text: str, file: Path) -> ImageName:
    if column == "md5":
        return by_md5(text.strip())
    return by_sha256(text.strip()) if column == "sha256" else by_path(text, file.parent)


def _entry(reference: ImageName, value: Any, column: str) -> Entry:
    """Parse the value of a column or key that holds tags."""
    if isinstance(value, dict):
        lists = [one for one in value.values() if isinstance(one, list)]
        return Entry(reference, [str(tag) for tag in (chain.from_iterable(lists) if lists else value)])
    if isinstance(value, list):
        return Entry(reference, [str(tag) for tag in value])
    if column == TAG:
        return Entry(reference, [tag] if (tag := str(value).strip()) else [])
    if column == "tag_string":
        return Entry(reference, str(value).split())
    tags = split_caption(str(value))
    return Entry(reference, tags, frozenset(tags if len(tags) == 1 and " " in tags[0] else ()))
