r"""Files in which people keep the tags of images.

a folder       sidecars: `cat.txt` or `cat.jpg.txt`; tags between commas, or one a line
.jsonl         an object a line; the image under uri, path, image_path, image, file_name, sha256 or md5; the tags under
               tags, caption, text or tag_string
.csv, .tsv     one of the same columns for the image, and either a row an image (tags, caption, text, tag_string) or a
               row a tag (tag); without a header: the image (or its md5 or sha256), then a tag, or all of them in quotes

Tags are a list, an object whose keys are tags, an object of lists by category, or a text between commas; in tag_string
they stand between spaces, as boorus write them. `.gz` is read too. Relative paths start at the folder of the file.
"""

import csv
import gzip
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

from db.errors import SourceError
from db.judging.image_index import Reference, by_md5, by_path, by_sha256

REFERENCES = ("uri", "path", "image_path", "image", "file_name", "sha256", "md5")
TAGS = ("tags", "caption", "text", "tag_string")
TAG = "tag"
SIDECAR = ".txt"

_MD5 = re.compile("[0-9a-fA-F]{32}")
_SHA256 = re.compile("[0-9a-fA-F]{64}")
_BETWEEN = re.compile(r"[,\r\n]")


@dataclass(frozen=True, slots=True)
class Entry:
    """What one place in a file says."""

    reference: Reference
    tags: list[str] | None
    """As they are written; None where they cannot be read."""


def read_entries(source: Path) -> Iterator[Entry]:
    """Everything that a folder or file says, in its order. An image may come more than once.

    Raises:
        SourceError: it cannot be read, or is in no format of these.
    """
    if source.is_dir():
        return _sidecars(source)
    suffix = next((one for one in reversed(source.suffixes) if one != ".gz"), "").lower()
    if suffix == ".jsonl":
        return _lines(source)
    if suffix in {".csv", ".tsv"}:
        return _table(source, "\t" if suffix == ".tsv" else ",")
    if not source.exists():
        raise SourceError(
            f"There is no {source}. Name a folder of captions, a .jsonl or a .csv file, or say `beside` or `labels`."
        )
    raise SourceError(f"{source}: true tags are read from a folder of .txt files, from .jsonl, .csv or .tsv.")


def split_caption(text: str) -> list[str]:
    """Tags between commas or on lines of their own."""
    return [tag for part in _BETWEEN.split(text) if (tag := part.strip())]


def read_sidecar(path: Path) -> list[str] | None:
    """The tags in a file; None when it cannot be read as text."""
    try:
        return split_caption(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        return None


def _sidecars(folder: Path) -> Iterator[Entry]:
    found = False
    for path in sorted(folder.rglob(f"*{SIDECAR}")):
        found = True
        # `cat` and `cat.jpg` both name the image cat.jpg.
        name = path.relative_to(folder).as_posix().removesuffix(SIDECAR)
        yield Entry(by_path(name, folder), read_sidecar(path))
    if not found:
        raise SourceError(f"{folder} holds no {SIDECAR} files.")


def _lines(file: Path) -> Iterator[Entry]:
    with _open(file) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{file}, line {number}"
            try:
                said = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise SourceError(f"{where}: not JSON ({error}).") from error
            if not isinstance(said, dict):
                raise SourceError(f"{where}: not a JSON object.")
            name = next((one for one in REFERENCES if said.get(one)), None)
            tags = next((one for one in TAGS if said.get(one) is not None), None)
            if name is None or tags is None:
                raise SourceError(
                    f"{where}: needs an image under one of {', '.join(REFERENCES)}, and tags under one of "
                    f"{', '.join(TAGS)}; it has {', '.join(said) or 'nothing'}."
                )
            yield Entry(_reference(name, str(said[name]), file), _tags(said[tags], tags))


def _table(file: Path, delimiter: str) -> Iterator[Entry]:
    with _open(file) as lines:
        reader = csv.reader(lines, delimiter=delimiter)
        first = next(reader, None)
        if first is None:
            return
        header = [cell.strip().lower() for cell in first]
        name = next((one for one in REFERENCES if one in header), None)
        tags = next((one for one in (TAG, *TAGS) if one in header), None)
        rows: Iterator[list[str]] = reader
        if name is None and tags is None:
            image_at, tags_at, name, tags, rows = 0, 1, _kind(first[0]), TAGS[0], chain([first], reader)
        elif name is None or tags is None:
            raise SourceError(
                f"{file} has the columns {', '.join(header)}. Needed are an image in one of {', '.join(REFERENCES)}, "
                f"and its tags in one of {', '.join(TAGS)}, or a tag a row in {TAG}."
            )
        else:
            image_at, tags_at = header.index(name), header.index(tags)
        complete = _complete(file, rows, max(image_at, tags_at), lambda: reader.line_num)
        # Rows of the same image that follow each other are one entry: less to look up.
        for text, group in groupby(complete, key=itemgetter(image_at)):
            yield Entry(_reference(name, text, file), [tag for row in group for tag in _tags(row[tags_at], tags)])


def _complete(file: Path, rows: Iterator[list[str]], last: int, line: Callable[[], int]) -> Iterator[list[str]]:
    try:
        for row in rows:
            if not row:
                continue
            if len(row) <= last:
                raise SourceError(f"{file}, line {line()}: too few columns. The file is incomplete.")
            yield row
    except csv.Error as error:
        raise SourceError(f"{file}, line {line()}: {error}.") from error


def _kind(text: str) -> str:
    """The column that a value without a header stands in."""
    if _SHA256.fullmatch(text.strip()):
        return "sha256"
    return "md5" if _MD5.fullmatch(text.strip()) else "path"


def _reference(column: str, text: str, file: Path) -> Reference:
    if column == "md5":
        return by_md5(text.strip())
    return by_sha256(text.strip()) if column == "sha256" else by_path(text, file.parent)


def _tags(said: Any, column: str) -> list[str]:
    if isinstance(said, dict):
        lists = [value for value in said.values() if isinstance(value, list)]
        return [str(tag) for tag in (chain.from_iterable(lists) if lists else said)]
    if isinstance(said, list):
        return [str(tag) for tag in said]
    if column == TAG:
        return [tag] if (tag := str(said).strip()) else []
    return str(said).split() if column == "tag_string" else split_caption(str(said))


@contextmanager
def _open(file: Path) -> Iterator[IO[str]]:
    try:
        if file.suffix.lower() == ".gz":
            with gzip.open(file, "rt", encoding="utf-8-sig", newline="") as lines:
                yield lines
        else:
            with file.open(encoding="utf-8-sig", newline="") as lines:
                yield lines
    except UnicodeDecodeError as error:
        raise SourceError(f"{file} is not UTF-8 text ({error}).") from error
    except (OSError, EOFError) as error:
        raise SourceError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
