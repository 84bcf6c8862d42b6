"""`--format imagefolder`: a metadata.jsonl where Hugging Face `datasets` looks for it.

`datasets` takes folders that are called `train`, `test-2024` and so on for splits, and then reads nothing else, not
even a metadata.jsonl above them; where there are none, pictures of such names (`train.png`) are splits. So each folder
of a split gets a metadata.jsonl of its own, and for pictures a README.md says that all of them are one split.
"""

import re
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from db.export.tagged_images import uris
from db.export.text import ImageFolder
from db.names.plural import counted
from producer.references import file_uri
from tagonce.export import destinations
from tagonce.export.record import leave_record
from tagonce.export.run import Run
from tagonce.export.sidecars import relative_name

METADATA = "metadata.jsonl"
README = "README.md"
MOST_FOLDERS = 100
"""Files that are open at once."""
_CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: "**"
---
"""
_ELSEWHERE = "The images are not in {}: `datasets` finds them when what is under {} is copied there, with its folders."
_OUTSIDE = "{} images lie outside of the folders that `datasets` takes for splits ({}): it passes over them."
_TOO_MANY = (
    "`datasets` takes {} folders for splits, as {}, and passes over {}: load it with data_files={{'train': '**'}}."
)
_BARE = (
    "No image in {} keeps a tag: `datasets` finds no type for empty lists and refuses to load them beside the others."
)
_NO_TAGS = '", "tags": [], "'
"""With quotes that no caption holds unescaped."""
_ODD = "`datasets` takes {} for a split and passes over other pictures and the captions. {}"
_CARD_SAYS = (
    "{} says that all are one split: load_dataset({!r}) reads it. load_dataset('imagefolder', ...) does not: give that "
    "one data_files={{'train': '**'}} too."
)
_CARD_LACKS = "{} was there and was left: say in its head, under configs and data_files, that all of {} is one split."
_KEYWORD = "(?:train|training|validation|valid|dev|val|test|testing|eval|evaluation)"
_SEPARATOR = "[-._ 0-9]"
_SPLIT_FOLDER = re.compile(f"(?:.*{_SEPARATOR})?{_KEYWORD}(?:{_SEPARATOR}.*)?", re.DOTALL)
_SPLIT_PICTURE = re.compile(f"(?:.*{_SEPARATOR})?{_KEYWORD}{_SEPARATOR}.*", re.DOTALL)


@dataclass
class Layout:
    """How `datasets` sees the pictures of a folder."""

    folders: Counter[str] = field(default_factory=Counter)
    """Images by the folder of their split, `a/train/`; an empty one for those in none."""
    odd: str | None = None
    """A picture that is called like a split."""

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
    """The folder of its split that a picture lies in, `a/train/` or empty, and its name from there on.

    A name that leads out of the root stays a uri, in no folder: nobody finds it.
    """
    name = relative_name(uri, root)
    parts = [] if name is None else name.split("/")
    for number, part in enumerate(parts[:-1], start=1):
        if _SPLIT_FOLDER.fullmatch(part):
            return "/".join(parts[:number]) + "/", "/".join(parts[number:])
    return "", name or uri


def metadata_file(out: str) -> str:
    return out if out.endswith(".jsonl") else f"{out.rstrip('/')}/{METADATA}"


def write(job: Run, out: str) -> str:
    """The files of an export, in a folder or below a prefix; what was done, in words.

    Raises:
        SettingsError: something must not be written over.
        StopError: something cannot be written.
    """
    place = out.removesuffix(METADATA)
    root, inside = _root(job, place)
    layout = Layout()
    for uri in uris(job.connection, job.model, **job.chosen):
        layout.add(*named(uri, root))
    folders = sorted(layout.folders) if len(layout.folders) <= MOST_FOLDERS else [""]
    places = {folder: f"{place}{folder}{METADATA}" for folder in folders}
    guard = job.guard(out)
    there = [folder for folder in folders if guard.check(places[folder], f"{folder}{METADATA}")]
    job.check_frequencies(guard)
    said = [] if inside else [_ELSEWHERE.format(place or "./", root or "their roots")]
    said += _splits(layout, folders, place)
    example = places[folders[0]] + f" and {len(folders) - 1:,} more" * (len(folders) > 1)
    if job.export.dry:
        counts = f"{len(folders) - len(there):,} new files and {len(there):,} that are replaced"
        return " ".join(
            [f"Nothing was written. It would be: {counted(job.total, 'image')} in {example}: {counts}.", *said]
        )
    with ExitStack() as stack:
        whole = {folder: stack.enter_context(destinations.whole_text(path)) for folder, path in places.items()}
        bare = _fill(job, root, whole)
    if bare and len(folders) > 1:
        said.append(_BARE.format(", ".join(place + folder for folder in bare)))
    if layout.needs_card and destinations.digest(place + README) is None:
        destinations.write_text(place + README, _CARD)
    job.write_frequencies()
    leave_record(guard.record_at, job.record(job.counts, root=root, files=guard.digests()))
    return " ".join([f"{counted(job.images, 'image')} written to {example}.", *said])


def _fill(job: Run, root: str, files: dict[str, IO[str]]) -> list[str]:
    """Write all images; the folders come back in which none of them keeps a tag."""

    def place_of(uri: str) -> tuple[str, str]:
        folder, name = named(uri, root)
        return (folder, name) if folder in files else ("", folder + name)

    bare = set(files)
    lines = ImageFolder(job.captioner, job.tags, lambda uri: place_of(uri)[1])
    for batch, found in job.batches():
        # A line an image: JSON has no line ends within.
        for uri, line in zip(batch.uris, lines.text(batch, found).split("\n"), strict=False):
            folder = place_of(uri)[0]
            files[folder].write(line + "\n")
            if _NO_TAGS not in line:
                bare.discard(folder)
    return sorted(bare)


def _root(job: Run, place: str) -> tuple[str, bool]:
    """What names are relative to, and whether that is the folder of the metadata: the images are in it then."""
    if job.export.root is None:
        folder = place if destinations.in_s3(place) else file_uri(str(Path(place).absolute())).rstrip("/") + "/"
        if all(uri.startswith(folder) for uri in job.ends):
            return folder, True
    return job.root, False


def _splits(layout: Layout, folders: list[str], place: str) -> list[str]:
    """What `datasets` would not tell: which captions it passes over, and what to do about it."""
    if layout.splits and folders == [""]:
        return [_TOO_MANY.format(f"{len(layout.splits):,}", layout.splits[0], place + METADATA)]
    if layout.splits and "" in layout.folders:
        return [_OUTSIDE.format(f"{layout.folders['']:,}", ", ".join(layout.splits[:3]))]
    if not layout.needs_card:
        return []
    card = destinations.read_text(place + README)
    says = _CARD_SAYS if card in {None, _CARD} else _CARD_LACKS
    return [_ODD.format(layout.odd, says.format(place + README, place or "./"))]
