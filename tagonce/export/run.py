"""One export under way: which images it reads, what names leave out, what its record says."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from typing import Any, TypedDict

import numpy as np
from rich.progress import Progress
from sqlalchemy import ColumnElement, Connection

from db.errors import SettingsError
from db.export.captions import Captioner, Written
from db.export.items import NAMESPACES, unique_names
from db.export.options import CaptionOptions
from db.export.tagged_images import uri_range
from db.export.text import json_inner
from db.ledger import models
from db.ledger.models import Tag
from db.read.tag_batches import TagBatch, read_tag_batches
from db.sql.gone_scope import Gone, scope_of
from tagonce.export.formats import TABLES, Existing, Format, defaults
from tagonce.export.overwrite_guard import OverwriteGuard
from tagonce.export.record import write_frequencies
from tagonce.export.sidecars import common_folder
from tagonce.options.policy_options import Resolved

HYDRUS_NAMESPACES = {"artist": "creator", "copyright": "series"}
"""What Hydrus calls these categories."""


class Chosen(TypedDict):
    """Which images: arguments of all that reads them."""

    where: ColumnElement[bool] | None
    under: str


@dataclass(frozen=True, slots=True)
class Export:
    """What to write where."""

    format: Format
    out: str | None
    """File, folder, `s3://bucket/...`; None for standard output, or beside the images."""
    options: CaptionOptions
    resolved: Resolved
    """What to keep."""
    extension: str = ".txt"
    existing: Existing = Existing.SKIP
    under: str = ""
    """Only images whose uri begins with this."""
    where: ColumnElement[bool] | None = None
    """Only images that a search finds."""
    query: str | None = None
    """That search, in words, for the record."""
    root: str | None = None
    """What names of outputs leave out of a uri; None for what all images of the model begin with."""
    dry: bool = False
    """Say what would be written, and write nothing."""
    frequencies: str | None = None
    """File for the number of images of each tag; `-` is a table for the person who watches."""


@dataclass
class Run:
    """One export under way."""

    export: Export
    connection: Connection
    tags: list[Tag]
    total: int
    """Images that there are to write."""
    bar: Progress
    captioner: Captioner = field(init=False)
    images: int = 0
    tagged: int = 0
    frequencies: Any = field(init=False)

    def __post_init__(self) -> None:
        format_, tags = self.export.format, self.tags
        if format_ in TABLES:
            tags = [Tag(name, tag.category) for name, tag in zip(unique_names(tags), tags, strict=True)]
        self.captioner = Captioner(
            self.export.options,
            tags,
            self.export.resolved.cut,
            namespaces=HYDRUS_NAMESPACES if format_ is Format.HYDRUS else NAMESPACES,
            encode=json_inner if format_ in {Format.JSONL, Format.IMAGEFOLDER, Format.KOHYA} else str,
        )
        self.frequencies = np.zeros(len(self.captioner.texts), dtype=np.int64)

    @property
    def chosen(self) -> Chosen:
        return {"where": self.export.where, "under": self.export.under}

    @cached_property
    def ends(self) -> tuple[str, str]:
        """The first and the last uri. Asked for where names of files depend on it: it costs a walk over all images."""
        return uri_range(self.connection, self.model, **self.chosen)

    @property
    def folder(self) -> str:
        """What all uris of this export begin with."""
        return common_folder(*self.ends)

    @cached_property
    def root(self) -> str:
        """What names leave out. It does not depend on which images are exported: else `x/1.jpg` of one export and
        `y/1.jpg` of the next one would both be `1`.

        Raises:
            SettingsError: the root that was named does not hold all of the images.
        """
        root = self.export.root
        if root is None:
            return common_folder(*uri_range(self.connection, self.model))
        outside = [uri for uri in self.ends if not uri.startswith(root)]
        if outside:
            raise SettingsError(f"--root {root} does not hold {outside[0]}: name a folder above all of these images.")
        return root

    @property
    def model(self) -> models.Model:
        return self.export.resolved.model

    def batches(self) -> Iterator[tuple[TagBatch, Written]]:
        task = self.bar.add_task("Exporting", total=self.total)
        found = read_tag_batches(self.connection, self.model, self.captioner.reading, **self.chosen)
        for batch in found:
            written = self.captioner.written(batch)
            yield batch, written
            self.images += len(batch)
            self.tagged += int((np.diff(written.offsets) > 0).sum())
            self.frequencies += np.bincount(written.items, minlength=self.frequencies.size)
            self.bar.advance(task, len(batch))

    def record(self, counts: dict[str, int] | None = None, **more: Any) -> dict[str, Any]:
        """What made this export, as JSON values."""
        export = self.export
        return {
            "tagonce": version("tagonce"),
            "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
            **export.resolved.as_json(),
            "format": str(export.format),
            "options": export.options.differences(defaults(export.format)),
            **self.selection,
            **({} if counts is None else {"counts": counts}),
            **more,
        }

    @property
    def selection(self) -> dict[str, str | None]:
        """Which images, as the record says it."""
        which = scope_of(self.connection)
        return {
            "under": self.export.under or None,
            "query": self.export.query,
            **({} if which is Gone.EXCLUDE else {"gone": str(which)}),
        }

    def guard(self, out: str, record_at: str | None = None) -> OverwriteGuard:
        """For the files of this export; the record lies beside `out` unless another place is named."""
        return OverwriteGuard(
            self.connection,
            record_at or f"{out}.export.json",
            self.selection,
            self.export.existing is Existing.OVERWRITE,
        )

    @property
    def counts(self) -> dict[str, int]:
        return {"images": self.images, "tagged": self.tagged, "tags": int(self.frequencies.sum())}

    def check_frequencies(self, guard: OverwriteGuard | None) -> None:
        """Before anything is written.

        Raises:
            SettingsError: their file must not be written over.
        """
        out = self.export.frequencies
        if out is not None and out != "-":
            (guard or self.guard(out)).check(out)

    def write_frequencies(self) -> None:
        """When all batches were read, and before the record that names the file."""
        if self.export.frequencies is not None:
            captioner = self.captioner
            counts = zip(captioner.texts, captioner.categories, self.frequencies.tolist(), strict=True)
            write_frequencies(self.export.frequencies, counts)
