"""`--format parquet-packed`: all stored scores as a folder of Parquet files, updated block by block.

    blocks/00000.parquet    the images with ids from 0 to 65,535, each in one row
    blocks/00001.parquet    and so on
    tags.parquet            the tags of the model
    manifest.json           the model, and of each block the state of the database that its file describes

The manifest is written last, and files are removed after it. A run that is killed leaves the manifest of the previous
one, in which the replaced blocks have an old state, so the next run writes them again.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import version
from itertools import chain
from typing import Any

import numpy as np
from sqlalchemy import select

from db.errors import SettingsError
from db.export.lake import BlockFile, BlockState, read_blocks, read_groups, write_tags
from db.export.parquet import import_pyarrow
from db.names.plural import counted
from db.schema import models
from db.sql.gone_scope import scope_of
from tagonce.export import destinations
from tagonce.export.choices import Existing
from tagonce.export.job import Done, Job, Writer

MANIFEST = "manifest.json"
TAGS = "tags.parquet"
BLOCKS = "blocks/"
FORMAT_VERSION = 1
_BLOCK_FILE = re.compile(r"\d{5,}\.parquet")
_SUMS = ("images", "tagged", "tags")
"""Counts of a block in the manifest: images, those of them with a score, scores."""


class LakeWriter(Writer):
    """A folder or S3 prefix of Parquet files.

    Raises:
        SettingsError: pyarrow is not installed, the export names no folder, or the folder is of another model or of
            other origin.
    """

    def __init__(self, job: Job) -> None:
        import_pyarrow()
        if job.export.out is None:
            raise SettingsError(f"--format {job.export.format.name} is a folder: name it with --out.")
        self._job = job
        self._folder = job.export.out.rstrip("/") + "/"
        self._overwrite = job.export.existing is Existing.OVERWRITE
        self._present = destinations.names_in(self._folder + BLOCKS)
        self._before = self._old_blocks()
        self.record_at = f"{self._folder}tagonce-export.json"
        self.files = {}

    def plan(self, replaced: Sequence[str]) -> str:  # noqa: ARG002 - says of blocks what is replaced
        changed = sum(not self._is_current(*pair) for pair in self._states.items())
        return (
            f"Nothing was written. It would be: {counted(changed, 'block')} written to {self._folder}, "
            f"{len(self._states) - changed:,} unchanged."
        )

    def write(self, replaced: Sequence[str]) -> Done:  # noqa: ARG002 - says of blocks what is replaced
        task = self._job.bar.add_task("Exporting", total=self._job.total)
        entries: list[dict[str, Any]] = []
        written = 0
        for block, state in self._states.items():
            entry = self._before[block] if self._is_current(block, state) else self._write_block(block, state)
            if entry is not None:
                entries.append(entry)
                written += entry is not self._before.get(block)
                self._job.bar.advance(task, entry["images"])
        if self._overwrite or not self._before:
            with destinations.whole(self._folder + TAGS) as path:
                write_tags(path, self._job.tags)
        sums = {name: sum(entry[name] for entry in entries) for name in _SUMS}
        manifest = self._head | sums | {"blocks": entries}
        destinations.write_text(self._folder + MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")
        # Also those that a run killed after its manifest left behind: readers take all files of the folder.
        kept = {entry["file"].removeprefix(BLOCKS) for entry in entries}
        vanished = [name for name in sorted(self._present - kept) if _BLOCK_FILE.fullmatch(name)]
        for name in vanished:
            destinations.remove(self._folder + BLOCKS + name)
        unknown = sum(entry["version"] is None for entry in entries)
        parts = [f"{counted(written, 'block')} written to {self._folder}", f"{len(entries) - written:,} unchanged"]
        parts += [f"{len(vanished):,} removed"] if vanished else []
        note = (
            f" {counted(unknown, 'block')} without a current index will be written again next time: run `tagonce "
            "index` before an export."
        ) * bool(unknown)
        return Done(f"{', '.join(parts)}.{note}", {**sums, "blocks": len(entries), "written": written})

    @cached_property
    def _states(self) -> dict[int, BlockState]:
        return read_blocks(self._job.connection, self._job.model)

    @cached_property
    def _head(self) -> dict[str, Any]:
        model, connection = self._job.model, self._job.connection
        registered = connection.scalars(select(models.c.added_at).where(models.c.id == model.id)).one()
        return {
            "format": self._job.export.format.name,
            "format_version": FORMAT_VERSION,
            "tagonce": version("tagonce"),
            "model": {
                "id": model.id,
                "name": model.name,
                "fingerprint": model.fingerprint,
                # Tells databases apart: ids and versions of another one mean nothing here.
                "registered_at": registered.isoformat(),
            },
            "floor": model.floor,
            "gone": str(scope_of(connection)),
        }

    def _old_blocks(self) -> dict[int, dict[str, Any]]:
        """The blocks of the manifest by number; empty if there is none, or if all are to be written again."""
        manifest = self._manifest()
        if manifest is None:
            others = [MANIFEST, TAGS, *(BLOCKS + name for name in sorted(self._present))]
            found = next((name for name in others if self._exists(name)), None)
            if found and not self._overwrite:
                raise SettingsError(
                    f"{self._folder} has a file {found} and no manifest of this format: the first export into it was "
                    "interrupted, or it is used for something else. --overwrite replaces the file; or name another "
                    "folder."
                )
            return {}
        if manifest["format_version"] != FORMAT_VERSION:
            raise SettingsError(
                f"{self._folder} has format version {manifest['format_version']}, and this tagonce writes version "
                f"{FORMAT_VERSION}: name another folder."
            )
        if manifest["model"] != self._head["model"]:
            raise SettingsError(
                f"{self._folder} has scores of the model {_label(manifest['model'])}, and this export is of "
                f"{_label(self._head['model'])}: name another folder."
            )
        same = manifest["gone"] == self._head["gone"] and not self._overwrite
        return {entry["block"]: entry for entry in manifest["blocks"]} if same else {}

    def _manifest(self) -> dict[str, Any] | None:
        try:
            manifest = json.loads(destinations.read_text(self._folder + MANIFEST) or "")
        except ValueError:
            return None
        ours = isinstance(manifest, dict) and manifest.get("format") == self._job.export.format.name
        return manifest if ours else None

    def _exists(self, name: str) -> bool:
        return name.removeprefix(BLOCKS) in self._present or destinations.digest(self._folder + name) is not None

    def _is_current(self, block: int, state: BlockState) -> bool:
        """Whether the file of a block describes its present state."""
        entry = self._before.get(block)
        return (
            entry is not None
            and state.version is not None
            and asdict(state).items() <= entry.items()
            and entry["file"].removeprefix(BLOCKS) in self._present
        )

    def _write_block(self, block: int, state: BlockState) -> dict[str, Any] | None:
        """Write a file. Returns the block's entry in the manifest; None if the block has no images."""
        groups = read_groups(self._job.connection, self._job.model, block)
        first = next(groups, None)
        if first is None:
            return None
        name = f"{BLOCKS}{block:05}.parquet"
        sums = np.zeros(len(_SUMS), dtype=np.int64)
        with destinations.whole(self._folder + name) as path:
            file = BlockFile(path)
            for group in chain([first], groups):
                file.write(group)
                sums += np.array([group.counts.size, np.count_nonzero(group.counts), group.scores.size])
            file.close()
        return {"block": block, "file": name, **dict(zip(_SUMS, sums.tolist(), strict=True)), **asdict(state)}


def _label(model: Mapping[str, Any]) -> str:
    return f"{model['name']} (id {model['id']}, fingerprint {model['fingerprint'][:8]}, {model['registered_at']})"
