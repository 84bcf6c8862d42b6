"""Exports that are one caption file an image."""

from collections.abc import Sequence
from typing import Any

from db.errors import SettingsError
from db.export.tagged_images import uris_ending
from db.names.uris import file_path
from producer.uris import path_or_uri
from tagonce.export.choices import Existing
from tagonce.export.job import Done, Job, Writer
from tagonce.export.record import read_record
from tagonce.export.relative_names import common_folder
from tagonce.export.sidecars import Sidecars, beside
from tagonce.export.small_files import small_files

RECORD = "tagonce-export.json"
"""Name of the record in a folder of sidecars."""
EARLIER = 20
"""Records of earlier exports into the folder that the record keeps."""


class SidecarWriter(Writer):
    """Caption files beside the images, in a folder or below an S3 prefix.

    Args:
        whole_name: see `Sidecars`.

    Raises:
        SettingsError: images in S3 have no folder beside them, or some images are not below the root.
    """

    def __init__(self, job: Job, *, whole_name: bool = False) -> None:
        out = job.export.out
        if out is None:
            beside(*job.ends)
        folder = (out if out is not None else file_path(common_folder(*job.ends))).rstrip("/")
        self._job = job
        self._whole_name = whole_name
        record_at = f"{folder}/{RECORD}"
        self.record_at = record_at
        self.files = {}
        self._before = read_record(record_at)
        self._root = None if out is None else _root_of_names(job, self._before)

    def plan(self, replaced: Sequence[str]) -> str:  # noqa: ARG002 - `Sidecars` counts what it replaces
        return self._sidecars().plan

    def write(self, replaced: Sequence[str]) -> Done:  # noqa: ARG002 - `Sidecars` counts what it replaces
        sidecars = self._sidecars()
        before = self._before or {}
        earlier = [before, *before.pop("earlier", [])] if before else []
        return Done(sidecars.summary, sidecars.counts, {"root": self._root, "earlier": earlier[:EARLIER]})

    def _sidecars(self) -> Sidecars:
        """Go through all images; with `Export.dry` nothing is written."""
        job, export = self._job, self._job.export
        with small_files(export.out, uris_ending(job.connection, export.extension)) as files:
            sidecars = Sidecars(
                files,
                self._root,
                extension=export.extension,
                whole_name=self._whole_name,
                existing=export.existing,
                separator=export.options.separator,
                dry=export.dry,
            )
            with sidecars:
                for batch, written in job.batches():
                    lists = job.captioner.lists(written) if export.existing is Existing.MERGE else ()
                    sidecars.write(batch.uris, job.captioner.captions(written), lists)
        return sidecars


def _root_of_names(job: Job, before: dict[str, Any] | None) -> str:
    """The root of the captions that exist, so that the file of an image keeps its name; else that of all images."""
    root = (before or {}).get("root")
    if job.export.root is not None or not isinstance(root, str):
        return job.root
    outside = [uri for uri in job.ends if not uri.startswith(root)]
    if outside:
        raise SettingsError(
            f"The captions in {job.export.out} have names relative to {path_or_uri(root) or '/'}, and {outside[0]} is "
            "not below it. Choose another folder; or rename all captions with --root, the folder of all images."
        )
    return root
