"""Whether a file may be written where something is: over an image never, over what others wrote only when told."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from db.errors import SettingsError
from db.export.tagged_images import is_registered
from producer.references import file_uri
from producer.sources.extensions import is_image
from tagonce.export import destinations
from tagonce.export.record import read_record


@dataclass
class OverwriteGuard:
    """Asked before each file of an export that is one file, or a few of them.

    What tagonce wrote is known by the record beside it, which holds the digest of every file: a file that is otherwise
    was changed since, or is somebody else's.
    """

    connection: Connection
    record_at: str
    """Where the record of this export goes, and that of the one before it lies."""
    selection: dict[str, Any]
    """The part of a record that says which images there are in an export."""
    overwrite: bool
    written: dict[str, str] = field(default_factory=dict)
    """By name where it goes."""

    def __post_init__(self) -> None:
        self._before = read_record(self.record_at) or {}

    def check(self, out: str, name: str | None = None) -> bool:
        """True when something is replaced.

        Args:
            out: file or object.
            name: what records call it; by default as the folder does.

        Raises:
            SettingsError: it must not be written.
        """
        if is_image(out):
            raise SettingsError(f"{out} is the name of an image, and exports write none: give it another suffix.")
        if not destinations.in_s3(out) and os.path.lexists(out) and not os.path.isfile(out):  # noqa: PTH113
            raise SettingsError(f"{out} is there and is no file: name one.")
        digest = destinations.digest(out)
        if _uris(out)[0] in {_uris(other)[0] for other in self.written.values()}:
            raise SettingsError(f"{out} is asked for twice: give one of the two another name.")
        name = name or out.rpartition("/")[2]
        name = out if name in self.written else name
        self.written[name] = out
        if digest is None:
            return False
        if is_registered(self.connection, _uris(out), bytes.fromhex(digest) if digest else None):
            raise SettingsError(f"{out} is an image of the database, and exports replace none: name another file.")
        if not self.overwrite:
            self._refuse_foreign(out, digest, name)
        return True

    def digests(self) -> dict[str, str]:
        """Of all that is there now, for the record."""
        found = ((name, destinations.digest(out)) for name, out in self.written.items())
        return {name: digest for name, digest in found if digest}

    def _refuse_foreign(self, out: str, digest: str, name: str) -> None:
        if not digest or digest != self._before.get("files", {}).get(name):
            raise SettingsError(
                f"{out} is there, and is not what an export wrote there ({self.record_at} would say so). --overwrite "
                "replaces it; or name another file."
            )
        if any(self._before.get(key) != value for key, value in self.selection.items()):
            chosen = " and ".join(f"{key} {value}" for key in self.selection if (value := self._before.get(key)))
            raise SettingsError(
                f"{out} is an export of other images ({chosen or 'all of them'}). --overwrite replaces it; or name "
                "another file."
            )


def refuse_foreign(path: Path, mark: bytes) -> None:
    """For plots and tables that have no record: a file is replaced when it begins like those of tagonce.

    Args:
        path: where one shall be written.
        mark: somewhere in the first 4 KiB of each of them.

    Raises:
        SettingsError: something else is there.
    """
    if not os.path.lexists(path):
        return
    try:
        with path.open("rb") as file:
            ours = mark in file.read(4096)
    except OSError:
        ours = False
    if not ours:
        raise SettingsError(f"{path} is there, and tagonce did not write it: name another file.")


def _uris(out: str) -> list[str]:
    if destinations.in_s3(out):
        return [out]
    return [file_uri(os.path.abspath(out)), file_uri(os.path.realpath(out))]  # noqa: PTH100 - as sources make them
