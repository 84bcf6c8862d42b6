"""An export from beginning to end: read, write captions, put them where they go, leave a record of it."""

import json
from contextlib import ExitStack
from typing import Any

from sqlalchemy import Connection

from db.errors import SettingsError
from db.export.parquet import LongParquet, ParquetFile, WideParquet, images_in_a_file, import_pyarrow
from db.export.tagged_images import count_images, uris_ending
from db.export.text import ImageFolder, JsonLines, Kohya, LongCsv, TextFormat
from db.ledger import models
from db.names.plural import counted
from db.read.tag_batches import IMAGES_AT_ONCE
from producer.references import file_path, path_or_uri
from tagonce.export import destinations, imagefolders
from tagonce.export.formats import PARQUETS, SIDECARS, Existing, Format, check_options
from tagonce.export.record import leave_record, read_record
from tagonce.export.run import Export, Run
from tagonce.export.sidecars import Sidecars, beside, relative_name
from tagonce.export.small_files import small_files
from tagonce.output import ui

__all__ = ["Export", "run"]

RECORD = "tagonce-export.json"
"""Left in a folder of sidecars."""
EARLIER = 20
"""Records of earlier exports into a folder of sidecars that are kept."""


def run(connection: Connection, export: Export) -> str:
    """Do it; what was done comes back in words.

    Raises:
        SettingsError: there is nothing to export, the options do not fit, or something must not be written over.
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
        return _write(Run(export, connection, models.tag_names(connection, model.id), total, bar))


def _write(job: Run) -> str:
    export = job.export
    if export.format in SIDECARS:
        return _write_sidecars(job)
    if export.format in PARQUETS:
        return _write_parquet(job)
    if export.format is Format.IMAGEFOLDER and export.out is not None:
        out = imagefolders.metadata_file(export.out)
        # Under another name it is no metadata of a folder: one file.
        if out.rpartition("/")[2] == imagefolders.METADATA:
            return imagefolders.write(job, out)
    return _write_text(job)


def _write_sidecars(job: Run) -> str:
    export, captioner = job.export, job.captioner
    if export.out is None:
        beside(*job.ends)
    place = export.out.rstrip("/") if export.out is not None else file_path(job.folder).rstrip("/")
    before = read_record(f"{place}/{RECORD}")
    root = None if export.out is None else _root_of_names(job, before)
    guard = job.guard(export.out or "", f"{place}/{RECORD}")
    job.check_frequencies(guard)
    with small_files(export.out, uris_ending(job.connection, export.extension)) as files:
        sidecars = Sidecars(
            files,
            root,
            extension=export.extension,
            whole_name=export.format is Format.HYDRUS,
            existing=export.existing,
            separator=export.options.separator,
            dry=export.dry,
        )
        with sidecars:
            for batch, written in job.batches():
                lists = captioner.lists(written) if export.existing is Existing.MERGE else ()
                sidecars.write(batch.uris, captioner.captions(written), lists)
    if export.dry:
        return sidecars.plan
    job.write_frequencies()
    earlier = [before, *before.pop("earlier", [])] if before else []
    counts = {**job.counts, **sidecars.counts}
    leave_record(guard.record_at, job.record(counts, root=root, files=guard.digests(), earlier=earlier[:EARLIER]))
    return sidecars.summary


def _root_of_names(job: Run, before: dict[str, Any] | None) -> str:
    """That of the captions which are there already, so that an image keeps its name; else the one of all images."""
    root = (before or {}).get("root")
    if job.export.root is not None or not isinstance(root, str):
        return job.root
    outside = [uri for uri in job.ends if not uri.startswith(root)]
    if outside:
        raise SettingsError(
            f"The captions in {job.export.out} are named from {path_or_uri(root) or '/'} on, and {outside[0]} does not "
            "lie there. Choose another folder; or name all of them anew with --root, the folder that holds all images."
        )
    return root


def _write_text(job: Run) -> str:
    out = job.export.out
    if job.export.format is Format.IMAGEFOLDER and out is not None:
        out = imagefolders.metadata_file(out)
    writer = _text_format(job)
    guard = None if out is None else job.guard(out)
    replaces = guard is not None and out is not None and guard.check(out)
    job.check_frequencies(guard)
    if job.export.dry:
        return _plan(job, out, replaces=replaces)
    with destinations.whole_text(out) as file:
        file.write(writer.head)
        for batch, written in job.batches():
            file.write(writer.text(batch, written))
        file.write(writer.tail)
    job.write_frequencies()
    if guard is None:
        ui.errors.print(json.dumps(job.record(job.counts), ensure_ascii=False), markup=False)
    else:
        leave_record(guard.record_at, job.record(job.counts, files=guard.digests()))
    return f"{counted(job.images, 'image')} written to {out or 'standard output'}."


def _text_format(job: Run) -> TextFormat:
    match job.export.format:
        case Format.JSONL:
            return JsonLines(job.captioner, job.tags)
        case Format.IMAGEFOLDER:
            return ImageFolder(job.captioner, job.tags, lambda uri: relative_name(uri, job.root) or uri)
        case Format.KOHYA:
            return Kohya(job.captioner, path_or_uri)
        case _:
            return LongCsv(job.captioner)


def _write_parquet(job: Run) -> str:
    out = job.export.out
    if out is None:
        raise SettingsError(f"--format {job.export.format} is no text: say with --out to which file it goes.")
    metadata = {"tagonce": json.dumps(job.record(), ensure_ascii=False)}
    kind = LongParquet if job.export.format is Format.PARQUET else WideParquet
    limit = None if kind is LongParquet else images_in_a_file(len(job.captioner.texts))
    several = limit is not None and job.total > limit
    names = _may_be_named(out, job.total, limit) if limit is not None and several else [out]
    guard = job.guard(out)
    there = [name for name in names if guard.check(name)]
    job.check_frequencies(guard)
    if job.export.dry:
        return _plan(job, names[0], replaces=bool(there))
    written = 0
    # All files get their names when the last one is whole.
    with ExitStack() as wholes:
        file: ParquetFile | None = None
        room = 0
        for batch, found in job.batches():
            if file is None or (several and room < len(batch)):
                if file is not None:
                    file.close()
                file = kind(wholes.enter_context(destinations.whole(names[written])), job.captioner, metadata)
                written += 1
                room = limit or 0
            file.write(batch, found)
            room -= len(batch)
        if file is not None:
            file.close()
    job.write_frequencies()
    leave_record(guard.record_at, job.record({**job.counts, "files": written}, files=guard.digests()))
    old = sorted(set(there) - set(names[:written]))
    stays = f" {len(old):,} more of an earlier export are still there: remove {old[0]} and on." if old else ""
    to = out if not several else f"{written} files, {names[0]} and on"
    return f"{counted(job.images, 'image')} written to {to}.{stays}"


def _may_be_named(out: str, total: int, limit: int) -> list[str]:
    """Names for all files that so many images can take: one is closed when the next batch would not fit."""
    in_each = max(limit - IMAGES_AT_ONCE, IMAGES_AT_ONCE)
    return [_numbered(out, number) for number in range(total // in_each + 2)]


def _numbered(out: str, number: int) -> str:
    stem, dot, suffix = out.rpartition(".")
    return f"{stem}-{number:05}{dot}{suffix}" if dot and "/" not in suffix else f"{out}-{number:05}"


def _plan(job: Run, out: str | None, *, replaces: bool) -> str:
    """What --dry-run says of one file."""
    how = "replacing what is there" if replaces else "a new file"
    where = "standard output" if out is None else f"{out}, {how}"
    return f"Nothing was written. It would be: {counted(job.total, 'image')} to {where}."
