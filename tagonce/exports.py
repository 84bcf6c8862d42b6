"""An export from beginning to end: read, write captions, put them where they go, leave a record of it."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress
from sqlalchemy import ColumnElement, Connection

from db import gone, models
from db.errors import SettingsError
from db.export.captions import Captioner, Written
from db.export.images import count_images, ends
from db.export.items import NAMESPACES, unique_names
from db.export.options import CaptionOptions
from db.export.parquet import LongParquet, ParquetFile, WideParquet, images_in_a_file, import_pyarrow
from db.export.text import ImageFolder, JsonLines, Kohya, LongCsv, TextFormat, json_inner
from db.kept import Kept, kept_images
from db.models import Tag
from producer.references import file_path, file_uri
from tagonce import destinations, ui
from tagonce.export_options import PARQUETS, SIDECARS, TABLES, Existing, Format, check_options, defaults
from tagonce.export_record import leave_record, write_frequencies
from tagonce.policy_options import Resolved
from tagonce.sidecars import Sidecars, beside, common_folder, relative_name

METADATA = "metadata.jsonl"
"""What `datasets` looks for in an imagefolder."""
RECORD = "tagonce-export.json"
"""Left in a folder of sidecars."""
HYDRUS_NAMESPACES = {"artist": "creator", "copyright": "series"}
"""What Hydrus calls these categories."""


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
    frequencies: str | None = None
    """File for the number of images of each tag; `-` is a table for the person who watches."""


@dataclass
class _Run:
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

    @cached_property
    def ends(self) -> tuple[str, str]:
        """The first and the last uri. Asked for where names of files depend on it: it costs a walk over all images."""
        return ends(self.connection, self.model, where=self.export.where, under=self.export.under)

    @property
    def folder(self) -> str:
        return common_folder(*self.ends)

    @property
    def model(self) -> models.Model:
        return self.export.resolved.model

    def batches(self) -> Iterator[tuple[Kept, Written]]:
        task = self.bar.add_task("Exporting", total=self.total)
        found = kept_images(
            self.connection, self.model, self.captioner.reading, where=self.export.where, under=self.export.under
        )
        for batch in found:
            written = self.captioner.written(batch)
            yield batch, written
            self.images += len(batch)
            self.tagged += int((np.diff(written.offsets) > 0).sum())
            self.frequencies += np.bincount(written.items, minlength=self.frequencies.size)
            self.bar.advance(task, len(batch))

    def record(self, counts: dict[str, int] | None = None) -> dict[str, Any]:
        """What made this export, as JSON values."""
        export = self.export
        return {
            "tagonce": version("tagonce"),
            "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
            **export.resolved.as_json(),
            "format": str(export.format),
            "options": export.options.differences(defaults(export.format)),
            "under": export.under or None,
            "query": export.query,
            **({} if (which := gone.chosen(self.connection)) is gone.Gone.EXCLUDE else {"gone": str(which)}),
            **({} if counts is None else {"counts": counts}),
        }

    @property
    def counts(self) -> dict[str, int]:
        return {"images": self.images, "tagged": self.tagged, "tags": int(self.frequencies.sum())}


def run(connection: Connection, export: Export) -> str:
    """Do it; what was done comes back in words.

    Raises:
        SettingsError: there is nothing to export, or the options do not fit.
        StopError: something cannot be written.
    """
    check_options(export.format, export.options)
    if export.format in PARQUETS:
        import_pyarrow()
    model = export.resolved.model
    total = count_images(connection, model, where=export.where, under=export.under)
    if not total:
        chosen = f" under {export.under}" * bool(export.under) + f" for {export.query}" * (export.query is not None)
        raise SettingsError(f"{models.title(connection, model)} has no predictions{chosen} to export.")
    with ui.progress_bar() as bar:
        job = _Run(export, connection, models.tag_names(connection, model.id), total, bar)
        if export.format in SIDECARS:
            summary = _write_sidecars(job)
        elif export.format in PARQUETS:
            summary = _write_parquet(job)
        else:
            summary = _write_text(job)
    if export.frequencies is not None:
        captioner = job.captioner
        counts = zip(captioner.texts, captioner.categories, job.frequencies.tolist(), strict=True)
        write_frequencies(export.frequencies, counts)
    return summary


def _write_sidecars(job: _Run) -> str:
    export, captioner = job.export, job.captioner
    if export.out is None:
        beside(*job.ends)
    look = export.existing is not Existing.OVERWRITE
    with destinations.small_files(export.out, look=look) as files:
        sidecars = Sidecars(
            files,
            None if export.out is None else job.folder,
            extension=export.extension,
            whole_name=export.format is Format.HYDRUS,
            existing=export.existing,
            separator=export.options.separator,
        )
        with sidecars:
            for batch, written in job.batches():
                lists = captioner.lists(written) if export.existing is Existing.MERGE else ()
                sidecars.write(batch.uris, captioner.captions(written), lists)
    place = export.out.rstrip("/") if export.out is not None else file_path(job.folder).rstrip("/")
    leave_record(f"{place}/{RECORD}", job.record({**job.counts, **sidecars.counts}))
    return sidecars.summary


def _write_text(job: _Run) -> str:
    out = _metadata_file(job.export.out) if job.export.format is Format.IMAGEFOLDER else job.export.out
    writer = _text_format(job, out)
    with destinations.whole_text(out) as file:
        file.write(writer.head)
        for batch, written in job.batches():
            file.write(writer.text(batch, written))
        file.write(writer.tail)
    if out is None:
        ui.errors.print(json.dumps(job.record(job.counts), ensure_ascii=False), markup=False)
    else:
        leave_record(f"{out}.export.json", job.record(job.counts))
    return f"{job.images:,} images written to {out or 'standard output'}."


def _text_format(job: _Run, out: str | None) -> TextFormat:
    match job.export.format:
        case Format.JSONL:
            return JsonLines(job.captioner, job.tags)
        case Format.IMAGEFOLDER:
            folder = _image_folder(job, out)
            return ImageFolder(job.captioner, job.tags, lambda uri: relative_name(uri, folder) or uri)
        case Format.KOHYA:
            return Kohya(job.captioner, lambda uri: file_path(uri) if uri.startswith("file://") else uri)
        case _:
            return LongCsv(job.captioner)


def _metadata_file(out: str | None) -> str | None:
    return out if out is None or out.endswith(".jsonl") else f"{out.rstrip('/')}/{METADATA}"


def _image_folder(job: _Run, out: str | None) -> str:
    """What `file_name` is relative to: the folder of the metadata where the images are in it, else what all share."""
    if out is None:
        return job.folder
    place = out if destinations.in_s3(out) else file_uri(str(Path(out).absolute()))
    folder = place[: place.rfind("/") + 1]
    inside = all(uri.startswith(folder) for uri in job.ends)
    return folder if inside else job.folder


def _write_parquet(job: _Run) -> str:
    out = job.export.out
    if out is None:
        raise SettingsError(f"--format {job.export.format} is no text: say with --out to which file it goes.")
    metadata = {"tagonce": json.dumps(job.record(), ensure_ascii=False)}
    kind = LongParquet if job.export.format is Format.PARQUET else WideParquet
    limit = None if kind is LongParquet else images_in_a_file(len(job.captioner.texts))
    several = limit is not None and job.total > limit
    names: list[str] = []
    # All files get their names when the last one is whole.
    with ExitStack() as wholes:
        file: ParquetFile | None = None
        room = 0
        for batch, written in job.batches():
            if file is None or (several and room < len(batch)):
                if file is not None:
                    file.close()
                names.append(_numbered(out, len(names)) if several else out)
                file = kind(wholes.enter_context(destinations.whole(names[-1])), job.captioner, metadata)
                room = limit or 0
            file.write(batch, written)
            room -= len(batch)
        if file is not None:
            file.close()
    leave_record(f"{out}.export.json", job.record({**job.counts, "files": len(names)}))
    to = out if len(names) == 1 else f"{len(names)} files, {names[0]} and on"
    return f"{job.images:,} images written to {to}."


def _numbered(out: str, number: int) -> str:
    stem, dot, suffix = out.rpartition(".")
    return f"{stem}-{number:05}{dot}{suffix}" if dot and "/" not in suffix else f"{out}-{number:05}"
