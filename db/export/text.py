"""Text formats: JSON lines, imagefolder metadata, kohya's metadata, long CSV.

Each joins pieces that were escaped once, one for each tag and one for each score. Escaping works character by
character, so the joined text is what `json` and `csv` would write.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from json.encoder import encode_basestring, encode_basestring_ascii

import numpy as np

from db.arrays.csr import offsets_of
from db.export.captions import Captioner, Written
from db.export.items import unique_names
from db.export.pieces import ObjectArray, Part, joined
from db.ledger.models import Tag
from db.read.tag_batches import TagBatch
from db.scores import SCALE

_FORMULA = re.compile("\\s*[=+\\-@\uff1d\uff0b\uff0d\uff20].*[(|!#\\[\uff08]", re.DOTALL)
_QUOTED = re.compile(r'[,"\r\n]')


def json_text(text: str) -> str:
    """A JSON string. A path that is not valid UTF-8 keeps its bytes, as escaped surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return encode_basestring_ascii(text)
    return encode_basestring(text)


def json_inner(text: str) -> str:
    """The same without its quotes."""
    return json_text(text)[1:-1]


def no_formula(text: str) -> str:
    """The text of a table cell; with an apostrophe in front if a spreadsheet would run it as a formula.

    A harmful formula calls a function, a command or another sheet. Tags that are faces, such as `=_=` and `@_@`, do
    not, and stay unchanged. Some programs accept the full-width signs of Japanese too.
    """
    return "'" + text if _FORMULA.match(text) else text


def csv_text(text: str) -> str:
    """A CSV field, quoted only where RFC 4180 requires it."""
    text = no_formula(text)
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


class TextFormat(ABC):
    """The text of one file, batch by batch: `head`, `text` for each batch, `tail`."""

    head = ""
    tail = ""

    @abstractmethod
    def text(self, batch: TagBatch, found: Written) -> str:
        """The text of these images.

        Args:
            batch: the images, as read.
            found: their captions, from `Captioner.written`.
        """


class JsonLines(TextFormat):
    """A line for each image: `{"uri", "width", "height", "caption", "tags": {name: probability}}`.

    The caption follows the options. `tags` is for programs: the tags that the policy keeps, under the model's names.

    Args:
        captioner: made with `encode=json_inner`.
    """

    def __init__(self, captioner: Captioner, tags: Sequence[Tag]) -> None:
        self._captioner = captioner
        names = [f"{json_text(name)}: " for name in unique_names(tags)]
        # Each name without and with a comma in front.
        self._fragments, starts = _fragments(
            captioner.fragments, names, [f", {name}" for name in names], _numbers(), ['", "tags": {', "}}\n"]
        )
        self._first_name, self._next_name, self._first_number, self._ends = starts[1:]

    def text(self, batch: TagBatch, found: Written) -> str:
        batch = self._captioner.kept(batch)
        counts = np.diff(batch.offsets)
        pairs = np.empty((batch.tag_ids.size, 2), dtype=np.int64)
        pairs[:, 0] = batch.tag_ids
        pairs[:, 0] += self._next_name
        pairs[batch.offsets[:-1][counts > 0], 0] -= self._next_name - self._first_name
        pairs[:, 1] = batch.scores
        pairs[:, 1] += self._first_number
        rows = zip(map(encode_basestring, batch.uris), _or_null(batch.widths), _or_null(batch.heights), strict=True)
        heads = [f'{{"uri": {uri}, "width": {width}, "height": {height}, "caption": "' for uri, width, height in rows]
        tags = (pairs.ravel(), 2 * counts)
        return joined(
            self._fragments, [heads, self._captioner.pieces(found), self._ends, tags, self._ends + 1], len(batch)
        )


class ImageFolder(TextFormat):
    """`metadata.jsonl` of a Hugging Face imagefolder: `{"file_name", "text", "tags": [...], "probabilities": [...]}`.

    `tags` and `probabilities` are parallel lists, so that every line has the same keys, as `datasets` requires.

    Args:
        captioner: made with `encode=json_inner`.
        name: the name in the folder of the file of a uri.
    """

    def __init__(self, captioner: Captioner, tags: Sequence[Tag], name: Callable[[str], str]) -> None:
        self._captioner = captioner
        self._name = name
        names = [json_text(name) for name in unique_names(tags)]
        numbers = _numbers()
        # Each name and number without and with a comma in front.
        self._fragments, starts = _fragments(
            captioner.fragments,
            names,
            [f", {name}" for name in names],
            numbers,
            [f", {number}" for number in numbers],
            ['", "tags": [', '], "probabilities": [', "]}\n"],
        )
        self._first_name, self._next_name, self._first_number, self._next_number, self._ends = starts[1:]

    def text(self, batch: TagBatch, found: Written) -> str:
        batch = self._captioner.kept(batch)
        counts = np.diff(batch.offsets)
        firsts = batch.offsets[:-1][counts > 0]
        names = batch.tag_ids + np.int64(self._next_name)
        names[firsts] -= self._next_name - self._first_name
        numbers = batch.scores + np.int64(self._next_number)
        numbers[firsts] -= self._next_number - self._first_number
        heads = [f'{{"file_name": {json_text(self._name(uri))}, "text": "' for uri in batch.uris]
        between, behind, end = range(self._ends, self._ends + 3)
        caption = self._captioner.pieces(found)
        parts: list[Part] = [heads, caption, between, (names, counts), behind, (numbers, counts), end]
        return joined(self._fragments, parts, len(batch))


class Kohya(TextFormat):
    """The metadata of kohya's sd-scripts: one JSON object, path to `{"tags": caption, "image_size": [w, h]}`.

    Args:
        captioner: made with `encode=json_inner`.
        path: the key for a uri.
    """

    head = "{"
    tail = "\n}\n"

    def __init__(self, captioner: Captioner, path: Callable[[str], str]) -> None:
        self._captioner = captioner
        self._path = path
        self._before = "\n"

    def text(self, batch: TagBatch, found: Written) -> str:
        heads = [f',\n{json_text(self._path(uri))}: {{"tags": "' for uri in batch.uris]
        heads[:1] = [self._before + head.removeprefix(",\n") for head in heads[:1]]
        self._before = ",\n"
        sizes = zip(_or_null(batch.widths), _or_null(batch.heights), strict=True)
        tails = [f'", "image_size": [{width}, {height}]}}' for width, height in sizes]
        return joined(self._captioner.fragments, [heads, self._captioner.pieces(found), tails], len(batch))


class LongCsv(TextFormat):
    """A row for each tag of an image: uri, tag, category, probability. Images without a tag have no row."""

    head = "uri,tag,category,probability\n"

    def __init__(self, captioner: Captioner) -> None:
        fields = zip(captioner.texts, captioner.categories, strict=True)
        self._tags = np.array(
            [f",{csv_text(name)},{csv_text(category or '')}," for name, category in fields], dtype=object
        )
        self._numbers = np.array([f"{number}\n" for number in _numbers()], dtype=object)

    def text(self, batch: TagBatch, found: Written) -> str:
        uris = np.array([csv_text(uri) for uri in batch.uris], dtype=object)
        pieces = np.stack([uris[found.rows], self._tags[found.items], self._numbers[found.scores]], axis=1)
        return "".join(pieces.ravel().tolist())


def _numbers() -> ObjectArray:
    """By score the probability, as JSON and CSV write it."""
    return np.array([repr(score / SCALE) for score in range(SCALE + 1)], dtype=object)


def _fragments(*parts: ObjectArray | Sequence[str]) -> tuple[ObjectArray, list[int]]:
    """All texts in one array, and where each part begins."""
    starts: list[int] = offsets_of([len(part) for part in parts]).tolist()
    return np.concatenate([np.array(part, dtype=object) for part in parts]), starts[:-1]


def _or_null(values: Iterable[int | None]) -> Iterable[int | str]:
    return ["null" if value is None else value for value in values]
