"""Text formats: JSON lines, imagefolder metadata, kohya's metadata, long CSV.

Each joins pieces that were escaped once, one for each tag and one for each score. Escaping works character by
character, so the joined text is what `json` and `csv` would write.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from json.encoder import encode_basestring, encode_basestring_ascii

import numpy as np

from db.arrays.csr import offsets_of, ranges
from db.export.captions import Captioner, ObjectArray, Written
from db.export.items import unique_names
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
        parts = (captioner.fragments, names, [f", {name}" for name in names], _numbers(), ['", "tags": {', "}}\n"])
        self._fragments = np.concatenate([np.array(part, dtype=object) for part in parts])
        _captions, self._first_name, self._next_name, self._first_number, self._ends, _size = offsets_of(
            [len(part) for part in parts]
        ).tolist()

    def text(self, batch: TagBatch, found: Written) -> str:
        batch = self._captioner.kept(batch)
        caption, caption_sizes = self._captioner.pieces(found)
        counts = np.diff(batch.offsets)
        # The pieces of an image: its beginning, its caption, `tags`, a name and a number for each tag, its end.
        sizes = caption_sizes + 2 * counts + 3
        starts = np.cumsum(sizes) - sizes
        indices = np.empty(int(sizes.sum()), dtype=np.int64)
        indices[ranges(starts + 1, caption_sizes)] = caption
        opens = starts + 1 + caption_sizes
        indices[opens] = self._ends
        names = np.repeat(opens + 1 - 2 * batch.offsets[:-1], counts) + 2 * np.arange(batch.tag_ids.size)
        indices[names] = self._next_name + batch.tag_ids.astype(np.int64)
        indices[opens[counts > 0] + 1] -= self._next_name - self._first_name
        indices[names + 1] = self._first_number + batch.scores.astype(np.int64)
        indices[starts + sizes - 1] = self._ends + 1
        indices[starts] = 0
        pieces = self._fragments[indices]
        rows = zip(map(encode_basestring, batch.uris), _or_null(batch.widths), _or_null(batch.heights), strict=True)
        pieces[starts] = [
            f'{{"uri": {uri}, "width": {width}, "height": {height}, "caption": "' for uri, width, height in rows
        ]
        return "".join(pieces.tolist())


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
        self._names = np.array([f", {json_text(name)}" for name in unique_names(tags)], dtype=object)
        self._numbers = np.array([f", {number}" for number in _numbers()], dtype=object)

    def text(self, batch: TagBatch, found: Written) -> str:
        batch = self._captioner.kept(batch)
        rows = zip(
            batch.uris,
            self._captioner.captions(found),
            _parts(self._names[batch.tag_ids].tolist(), batch.offsets),
            _parts(self._numbers[batch.scores].tolist(), batch.offsets),
            strict=True,
        )
        return "".join(
            [
                f'{{"file_name": {json_text(self._name(uri))}, "text": "{caption}", '
                f'"tags": [{names}], "probabilities": [{numbers}]}}\n'
                for uri, caption, names, numbers in rows
            ]
        )


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
        rows = zip(
            batch.uris,
            self._captioner.captions(found),
            _or_null(batch.widths),
            _or_null(batch.heights),
            strict=True,
        )
        lines = [
            f'{json_text(self._path(uri))}: {{"tags": "{caption}", "image_size": [{width}, {height}]}}'
            for uri, caption, width, height in rows
        ]
        before, self._before = self._before, ",\n"
        return before + ",\n".join(lines)


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


def _parts(pieces: list[str], offsets: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str]:
    """The joined pieces of each image, without the `, ` at the beginning."""
    starts = offsets.tolist()
    return ["".join(pieces[start:end])[2:] for start, end in pairwise(starts)]


def _or_null(values: Iterable[int | None]) -> Iterable[int | str]:
    return ["null" if value is None else value for value in values]
