"""Exports as Parquet: one file, or several of the wide form where one would have too many columns times rows."""

import json
from collections.abc import Sequence
from contextlib import ExitStack

from db.errors import SettingsError
from db.export.parquet import MOST_WIDE_COLUMNS, ParquetFile, WideParquet, images_in_a_file, import_pyarrow
from db.names.plural import counted
from db.read.tag_batches import IMAGES_AT_ONCE
from tagonce.export import destinations
from tagonce.export.job import Done, Job, Writer
from tagonce.export.text_writer import plan_of_file


class ParquetWriter(Writer):
    """Parquet files.

    Args:
        kind: their form.

    Raises:
        SettingsError: pyarrow is not installed, the export names no file, or the wide form would have too many columns.
    """

    def __init__(self, job: Job, kind: type[ParquetFile]) -> None:
        import_pyarrow()
        out = job.export.out
        if out is None:
            raise SettingsError(f"--format {job.export.format.name} is not text: name a file with --out.")
        columns = len(job.captioner.texts)
        if kind is WideParquet and columns > MOST_WIDE_COLUMNS:
            raise SettingsError(
                f"--format {job.export.format.name} has a column for each tag: {columns:,} of {job.model.name}, and at "
                f"most {MOST_WIDE_COLUMNS:,}. Choose --format parquet, with a row for each tag of an image."
            )
        self._job = job
        self._kind = kind
        self._out = out
        self._limit = images_in_a_file(columns) if kind is WideParquet else job.total
        self._several = job.total > self._limit
        self._names = _possible_names(out, job.total, self._limit) if self._several else [out]
        self.record_at = f"{out}.export.json"
        self.files = dict.fromkeys(self._names)

    def plan(self, replaced: Sequence[str]) -> str:
        return plan_of_file(self._job, self._names[0], replaces=bool(replaced))

    def write(self, replaced: Sequence[str]) -> Done:
        job = self._job
        metadata = {"tagonce": json.dumps(job.record(), ensure_ascii=False)}
        written = 0
        # All files get their names when the last one is complete.
        with ExitStack() as wholes:
            file: ParquetFile | None = None
            room = 0
            for batch, found in job.batches():
                if file is None or (self._several and room < len(batch)):
                    if file is not None:
                        file.close()
                    path = wholes.enter_context(destinations.whole(self._names[written]))
                    file = self._kind(path, job.captioner, metadata)
                    written += 1
                    room = self._limit
                file.write(batch, found)
                room -= len(batch)
            if file is not None:
                file.close()
        old = sorted(set(replaced) - set(self._names[:written]))
        stays = f" {len(old):,} more files of an earlier export exist: remove {old[0]} and on." if old else ""
        to = f"{written} files, {self._names[0]} and on" if self._several else self._out
        return Done(f"{counted(job.images, 'image')} written to {to}.{stays}", {"files": written})


def _possible_names(out: str, total: int, limit: int) -> list[str]:
    """Names for the most files that can be needed: a file is closed when the next batch would not fit."""
    in_each = max(limit - IMAGES_AT_ONCE, IMAGES_AT_ONCE)
    return [_numbered(out, number) for number in range(total // in_each + 2)]


def _numbered(out: str, number: int) -> str:
    stem, dot, suffix = out.rpartition(".")
    return f"{stem}-{number:05}{dot}{suffix}" if dot and "/" not in suffix else f"{out}-{number:05}"
