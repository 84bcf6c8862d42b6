"""One export: what was asked for (`Export`), in which format (`FormatSpec`), and the export under way (`Job`)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from typing import Any, NamedTuple, TypedDict

import numpy as np
from rich.progress import Progress
from sqlalchemy import ColumnElement, Connection

from db.arrays.types import Int64Array
from db.errors import SettingsError
from db.export.captions import Captioner, Written
from db.export.items import NAMESPACES, unique_names
from db.export.options import CaptionOptions, changed
from db.export.tagged_images import uri_range
from db.ledger.models import Model, Tag
from db.read.tag_batches import TagBatch, read_tag_batches
from db.scope import Gone
from db.sql.gone_scope import scope_of
from tagonce.export.choices import Existing
from tagonce.export.record import write_frequencies
from tagonce.export.relative_names import common_folder
from tagonce.options.policy_options import ResolvedPolicy

_CAPTIONS = CaptionOptions()


@dataclass(frozen=True, slots=True)
class FormatSpec:
    """A format: how it is written, and which options it takes."""

    name: str
    """As `--format` has it."""
    writer: "Callable[[Job], Writer]"
    defaults: CaptionOptions = _CAPTIONS
    """The caption options, where the command line says nothing."""
    unused: frozenset[str] = frozenset()
    """Caption options that have no effect, and are refused."""
    encode: Callable[[str], str] = str
    """Applied to each piece of a caption (`Captioner`)."""
    namespaces: Mapping[str, str] = field(default_factory=lambda: NAMESPACES)
    """Prefixes of categories (`Captioner`)."""
    unique_names: bool = False
    """Tags with a blank or repeated name are numbered, so that a program can tell them apart."""
    sidecars: bool = False
    """One file an image, which `--merge` can add to."""
    uses_root: bool = False
    """It names images relative to `--root`."""
    sizes: bool = False
    """It writes widths and heights."""
    all_scores: bool = False
    """It writes the stored scores of all images, and takes no policy and no choice of images."""
    to_stdout: bool = True
    """It is one stream of text."""

    def options(self, given: Mapping[str, Any]) -> CaptionOptions:
        """The defaults with the options given: names of fields of `CaptionOptions`, None for those not given."""
        return replace(self.defaults, **{name: value for name, value in given.items() if value is not None})

    def check(self, options: CaptionOptions) -> None:
        """Refuse options without an effect.

        Raises:
            SettingsError: one of `unused` is not at its default.
        """
        if wrong := [name for name in changed(options, self.defaults) if name in self.unused]:
            named = ", ".join("--" + name.replace("_", "-") for name in wrong)
            raise SettingsError(
                f"--format {self.name} does not take {named}. Formats with captions are txt, jsonl, kohya."
            )


class Done(NamedTuple):
    """The result of a writer."""

    summary: str
    """In words."""
    counts: Mapping[str, int] = {}
    """For the record, beside `Job.counts`."""
    facts: Mapping[str, Any] = {}
    """For the record: `root`, `earlier`."""


class Writer(ABC):
    """Writes one export in one format. Made from a `Job`; writes nothing before `write`."""

    record_at: str | None
    """Where the record goes; None: to standard error."""
    files: Mapping[str, str | None]
    """The files or objects that may be written, but for sidecars, and their names in the record (`OverwriteGuard`)."""

    @abstractmethod
    def plan(self, replaced: Sequence[str]) -> str:
        """What `write` would do, in words, for `--dry-run`.

        Args:
            replaced: those of `files` that exist.
        """

    @abstractmethod
    def write(self, replaced: Sequence[str]) -> Done:
        """Write all images.

        Args:
            replaced: those of `files` that exist.

        Raises:
            SettingsError, StopError: something cannot be written.
        """


class Chosen(TypedDict):
    """Which images: arguments of the functions that read them."""

    where: ColumnElement[bool] | None
    under: str


@dataclass(frozen=True, slots=True)
class Export:
    """What to write where."""

    format: FormatSpec
    out: str | None
    """File, folder, `s3://bucket/...`; None for standard output, or beside the images."""
    options: CaptionOptions
    resolved: ResolvedPolicy
    """Which tags to keep."""
    extension: str = ".txt"
    existing: Existing = Existing.SKIP
    under: str = ""
    """Only images whose uri begins with this."""
    where: ColumnElement[bool] | None = None
    """Only images that a search finds."""
    query: str | None = None
    """The text of that search, for the record."""
    root: str | None = None
    """The part of uris that names of outputs leave out; None for the common folder of all images of the model."""
    dry: bool = False
    """Write nothing, and say what would be written."""
    frequencies: str | None = None
    """File for the number of images of each tag; `-` is a table on standard error."""


@dataclass
class Job:
    """One export under way."""

    export: Export
    connection: Connection
    tags: list[Tag]
    """Of the model, by output position."""
    total: int
    """Images to write."""
    bar: Progress
    captioner: Captioner = field(init=False)
    images: int = 0
    """Images read so far."""
    tagged: int = 0
    """Those of them that keep a tag."""
    frequencies: Int64Array = field(init=False)
    """(items of the captioner,) images read so far that have each."""

    def __post_init__(self) -> None:
        spec, tags = self.export.format, self.tags
        if spec.unique_names:
            tags = [Tag(name, tag.category) for name, tag in zip(unique_names(tags), tags, strict=True)]
        self.captioner = Captioner(
            self.export.options, tags, self.export.resolved.cut, namespaces=spec.namespaces, encode=spec.encode
        )
        self.frequencies = np.zeros(len(self.captioner.texts), dtype=np.int64)

    @property
    def model(self) -> Model:
        return self.export.resolved.model

    @property
    def chosen(self) -> Chosen:
        return {"where": self.export.where, "under": self.export.under}

    @cached_property
    def ends(self) -> tuple[str, str]:
        """The first and the last uri. Only where names of files depend on them: this reads the uris of all images."""
        return uri_range(self.connection, self.model, **self.chosen)

    @cached_property
    def root(self) -> str:
        """The part of uris that names leave out. It does not depend on which images are exported: otherwise `x/1.jpg`
        of one export and `y/1.jpg` of the next one would both be `1`.

        Raises:
            SettingsError: some images are not below `Export.root`.
        """
        root = self.export.root
        if root is None:
            return common_folder(*uri_range(self.connection, self.model))
        outside = [uri for uri in self.ends if not uri.startswith(root)]
        if outside:
            raise SettingsError(f"{outside[0]} is not below --root {root}: name a folder above all of these images.")
        return root

    def batches(self) -> Iterator[tuple[TagBatch, Written]]:
        """All images and their captions, counted as they pass."""
        task = self.bar.add_task("Exporting", total=self.total)
        reading, sizes = self.captioner.reading, self.export.format.sizes
        for batch in read_tag_batches(self.connection, self.model, reading, **self.chosen, sizes=sizes):
            written = self.captioner.written(batch)
            yield batch, written
            self.images += len(batch)
            self.tagged += int((np.diff(written.offsets) > 0).sum())
            self.frequencies += np.bincount(written.items, minlength=self.frequencies.size)
            self.bar.advance(task, len(batch))

    @property
    def counts(self) -> dict[str, int]:
        return {"images": self.images, "tagged": self.tagged, "tags": int(self.frequencies.sum())}

    def write_frequencies(self) -> None:
        """After all batches were read, and before the record that names the file."""
        if self.export.frequencies is not None:
            captioner = self.captioner
            counts = zip(captioner.texts, captioner.categories, self.frequencies.tolist(), strict=True)
            write_frequencies(self.export.frequencies, counts)

    @property
    def selection(self) -> dict[str, str | None]:
        """Which images, for the record."""
        which = scope_of(self.connection)
        return {
            "under": self.export.under or None,
            "query": self.export.query,
            **({} if which is Gone.EXCLUDE else {"gone": str(which)}),
        }

    def record(self) -> dict[str, Any]:
        """What made this export, as JSON values."""
        export = self.export
        return {
            "tagonce": version("tagonce"),
            "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
            **export.resolved.as_json(),
            "format": export.format.name,
            "options": export.options.differences(export.format.defaults),
            **self.selection,
        }
