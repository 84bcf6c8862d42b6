"""Which existing files an export may overwrite: images never, files of other origin only with --overwrite."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sqlalchemy import Connection

from db.errors import SettingsError
from db.export.tagged_images import is_registered
from db.names.uris import file_uri
from producer.sources.extensions import is_image
from tagonce.export import destinations
from tagonce.export.record import read_record


@dataclass
class OverwriteGuard:
    """Checks each file of an export, before anything is written. Not for sidecars, which are checked one by one.

    The record of an earlier export holds the digests of its files: a file with another digest was changed since, or has
    another origin.
    """

    connection: Connection
    record_at: str
    """The record of this export, and before it is written that of the previous one."""
    selection: dict[str, Any]
    """The keys of a record that define which images are in an export."""
    overwrite: bool
    written: dict[str, str] = field(default_factory=dict)
    """Name in the record to file or object."""

    @cached_property
    def _before(self) -> dict[str, Any]:
        return read_record(self.record_at) or {}

    def check(self, out: str, name: str | None = None) -> bool:
        """Whether a file or object exists and is to be replaced.

        Args:
            name: in the record; default: the last part of `out`.

        Raises:
            SettingsError: it must not be written.
        """
        if is_image(out):
            raise SettingsError(
                f"{out} has the suffix of an image, and exports never write images: give it another suffix."
            )
        if not destinations.in_s3(out) and os.path.lexists(out) and not os.path.isfile(out):  # noqa: PTH113
            raise SettingsError(f"{out} exists and is not a file: name a file.")
        digest = destinations.digest(out)
        if _uris(out)[0] in {_uris(other)[0] for other in self.written.values()}:
            raise SettingsError(f"{out} is the name of two outputs: give one of them another name.")
        name = name or out.rpartition("/")[2]
        name = out if name in self.written else name
        self.written[name] = out
        if digest is None:
            return False
        if is_registered(self.connection, _uris(out), bytes.fromhex(digest) if digest else None):
            raise SettingsError(
                f"{out} is an image of the database, and exports never replace images: name another file."
            )
        if not self.overwrite:
            self._refuse_foreign(out, digest, name)
        return True

    def digests(self) -> dict[str, str]:
        """The digests of all files that exist now, for the record."""
        found = ((name, destinations.digest(out)) for name, out in self.written.items())
        return {name: digest for name, digest in found if digest}

    def _refuse_foreign(self, out: str, digest: str, name: str) -> None:
        if not digest or digest != self._before.get("files", {}).get(name):
            raise SettingsError(
                f"{out} exists, and its digest is not in the record of an export ({self.record_at}). --overwrite "
                "replaces it; or name another file."
            )
        if any(self._before.get(key) != value for key, value in self.selection.items()):
            chosen = " and ".join(f"{key} {value}" for key in self.selection if (value := self._before.get(key)))
            raise SettingsError(
                f"{out} is an export of other images ({chosen or 'all images'}). --overwrite replaces it; or name "
                "another file."
            )


def _uris(out: str) -> list[str]:
    if destinations.in_s3(out):
        return [out]
    return [file_uri(os.path.abspath(out)), file_uri(os.path.realpath(out))]  # noqa: PTH100 - as sources make them
