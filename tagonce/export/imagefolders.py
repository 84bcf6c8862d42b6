"""`--format imagefolder`: a metadata.jsonl where Hugging Face `datasets` looks for it.

`datasets` reads folders named `train`, `test-2024` and the like as splits, and then nothing else, not even a
metadata.jsonl above them. Without such folders, pictures with such names (`train.png`) are splits. So each folder of a
split gets a metadata.jsonl of its own; for pictures, a README.md declares all images to be one split.
"""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from db.export.tagged_images import uris
from db.export.text import ImageFolder
from db.names.plural import counted
from db.names.uris import file_uri
from tagonce.export import destinations
from tagonce.export.job import Done, Job, Writer
from tagonce.export.relative_names import relative_name
from tagonce.export.text_writer import TextWriter

METADATA = "metadata.jsonl"
README = "README.md"
MOST_FOLDERS = 100
"""Most files that are open at a time."""
_CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: "**"
---
"""
_ELSEWHERE = "The images are not in {}: copy everything below {} there, with its folders, for `datasets` to find them."
_OUTSIDE = "{} images are outside the folders that `datasets` reads as splits ({}), and are ignored by it."
_TOO_MANY = (
    "`datasets` reads {} folders as splits, for example {}, and ignores {}: load it with data_files={{'train': '**'}}."
)
_BARE = "No image in {} keeps a tag: `datasets` has no type for empty lists, and fails to load the folders together."
_NO_TAGS = '", "tags": [], "'
"""A caption cannot contain this: its quotes would be escaped."""
_ODD = "`datasets` reads {} as a split and ignores the other images and the captions. {}"
_CARD_DECLARES = (
    "{} declares all images to be one split, for load_dataset({!r}). load_dataset('imagefolder', ...) does not read "
    "it, and needs data_files={{'train': '**'}}."
)
_CARD_LACKS = (
    "{} exists and was not changed: declare in its head, under configs and data_files, all of {} as one split."
)
_KEYWORD = "(?:train|training|validation|valid|dev|val|test|testing|eval|evaluation)"
_SEPARATOR = "[-._ 0-9]"
_SPLIT_FOLDER = re.compile(f"(?:.*{_SEPARATOR})?{_KEYWORD}(?:{_SEPARATOR}.*)?", re.DOTALL)
_SPLIT_PICTURE = re.compile(f"(?:.*{_SEPARATOR})?{_KEYWORD}{_SEPARATOR}.*", re.DOTALL)


@dataclass
class Layout:
    """The splits that `datasets` finds in a folder of images."""

    folders: Counter[str] = field(default_factory=Counter)
    """Images by the folder of their split, `a/train/`; empty for images in none."""
    odd: str | None = None
    """An image with the name of a split."""

    def add(self, folder: str, name: str) -> None:
        self.folders[folder] += 1
        if self.odd is None and _SPLIT_PICTURE.fullmatch(name.rpartition("/")[2]):
            self.odd = name

    @property
    def needs_card(self) -> bool:
        return self.odd is not None and not self.splits

    @property
    def splits(self) -> list[str]:
        return sorted(folder for folder in self.folders if folder)


def named(uri: str, root: str) -> tuple[str, str]:
    """(folder of its split, `a/train/` or empty; name within that folder) of an image.

    For a uri that is not below the root: no folder, and the uri as the name. `datasets` then finds no file.
    """
    name = relative_name(uri, root)
    parts = [] if name is None else name.split("/")
    for number, part in enumerate(parts[:-1], start=1):
        if _SPLIT_FOLDER.fullmatch(part):
            return "/".join(parts[:number]) + "/", "/".join(parts[number:])
    return "", name or uri


def imagefolder_writer(job: Job) -> Writer:
    """By the name of the output: a folder or its metadata.jsonl; under another name it is one text file."""
    out = job.export.out
    if out is not None and not out.endswith(".jsonl"):
        out = f"{out.rstrip('/')}/{METADATA}"
    if out is not None and out.rpartition("/")[2] == METADATA:
        return ImageFolderWriter(job, out)
    lines = ImageFolder(job.captioner, job.tags, lambda uri: relative_name(uri, job.root) or uri)
    return TextWriter(job, lines, out)


class ImageFolderWriter(Writer):
    """A metadata.jsonl in a folder or below a prefix, and one in each folder of a split.

    Args:
        out: the metadata.jsonl of the whole folder.

    Raises:
        SettingsError: some images are not below the root.
    """

    def __init__(self, job: Job, out: str) -> None:
        self._job = job
        self._folder = base = out.removesuffix(METADATA)
        self._root, self._inside = _root(job, base)
        self._layout = layout = Layout()
        for uri in uris(job.connection, job.model, **job.chosen):
            layout.add(*named(uri, self._root))
        self._folders = sorted(layout.folders) if len(layout.folders) <= MOST_FOLDERS else [""]
        self.record_at = f"{out}.export.json"
        self.files = {f"{base}{folder}{METADATA}": f"{folder}{METADATA}" for folder in self._folders}

    def plan(self, replaced: Sequence[str]) -> str:
        counts = f"{len(self.files) - len(replaced):,} new files and {len(replaced):,} that are replaced"
        images = counted(self._job.total, "image")
        plan = f"Nothing was written. It would be: {images} in {self._example}: {counts}."
        return " ".join([plan, *self._notes()])

    def write(self, replaced: Sequence[str]) -> Done:  # noqa: ARG002 - only a plan mentions it
        notes = self._notes()
        with ExitStack() as stack:
            whole = {
                folder: stack.enter_context(destinations.whole_text(path))
                for folder, path in zip(self._folders, self.files, strict=True)
            }
            bare = self._fill(whole)
        if bare and len(self._folders) > 1:
            notes.append(_BARE.format(", ".join(self._folder + folder for folder in bare)))
        if self._layout.needs_card and destinations.digest(self._folder + README) is None:
            destinations.write_text(self._folder + README, _CARD)
        written = f"{counted(self._job.images, 'image')} written to {self._example}."
        return Done(" ".join([written, *notes]), facts={"root": self._root})

    @property
    def _example(self) -> str:
        more = len(self._folders) - 1
        return next(iter(self.files)) + f" and {more:,} more" * bool(more)

    def _notes(self) -> list[str]:
        """Where `datasets` looks for the images, and which it ignores."""
        elsewhere = _ELSEWHERE.format(self._folder or "./", self._root or "their roots")
        return [*([] if self._inside else [elsewhere]), *_splits(self._layout, self._folders, self._folder)]

    def _fill(self, files: dict[str, IO[str]]) -> list[str]:
        """Write all images; returns the folders in which none of them keeps a tag."""

        def split_of(uri: str) -> tuple[str, str]:
            folder, name = named(uri, self._root)
            return (folder, name) if folder in files else ("", folder + name)

        bare = set(files)
        lines = ImageFolder(self._job.captioner, self._job.tags, lambda uri: split_of(uri)[1])
        for batch, found in self._job.batches():
            # A line an image: JSON has no line ends within.
            for uri, line in zip(batch.uris, lines.text(batch, found).split("\n"), strict=False):
                folder = split_of(uri)[0]
                files[folder].write(line + "\n")
                if _NO_TAGS not in line:
                    bare.discard(folder)
        return sorted(bare)


def _root(job: Job, base: str) -> tuple[str, bool]:
    """The root of names, and whether it is the folder of the metadata: the images are in it then."""
    if job.export.root is None:
        folder = base if destinations.in_s3(base) else file_uri(str(Path(base).absolute())).rstrip("/") + "/"
        if all(uri.startswith(folder) for uri in job.ends):
            return folder, True
    return job.root, False


def _splits(layout: Layout, folders: list[str], base: str) -> list[str]:
    """The images that `datasets` ignores without a message, and the remedy."""
    if layout.splits and folders == [""]:
        return [_TOO_MANY.format(f"{len(layout.splits):,}", layout.splits[0], base + METADATA)]
    if layout.splits and "" in layout.folders:
        return [_OUTSIDE.format(f"{layout.folders['']:,}", ", ".join(layout.splits[:3]))]
    if not layout.needs_card:
        return []
    card = destinations.read_text(base + README)
    remedy = _CARD_DECLARES if card in {None, _CARD} else _CARD_LACKS
    return [_ODD.format(layout.odd, remedy.format(base + README, base or "./"))]
