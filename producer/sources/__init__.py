"""Where references come from: folders, files, S3 prefixes, and lists of any of these."""

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from db.errors import SourceError
from producer.references import Reference, as_folder, file_uri
from producer.sources.addresses import resolve
from producer.sources.folder import in_folder, local_reference
from producer.sources.manifest import in_manifest, in_stream, is_manifest

__all__ = ["place", "references"]


def references(
    source: str, *, base: Path | None = None, column: str | None = None, stdin: TextIO | None = None
) -> Iterator[Reference]:
    """Every image that a source points at, one at a time: a source may hold millions.

    Args:
        source: a folder, a file, `s3://bucket/prefix`, a manifest (.txt, .list, .csv, .tsv, .jsonl, .ndjson,
            .parquet), or `-` for a list on standard input.
        base: where relative references in a list start; by default the manifest's own folder, for standard
            input the current one.
        column: which column of a manifest holds the reference; by default the first of `rows.COLUMNS` that is
            there. Sources without columns pass over it.
        stdin: read in place of sys.stdin.

    Raises SourceError at once when the source is nothing we can read, and while iterating when reading fails
    or nothing is found.
    """
    if source == "-":
        return in_stream(stdin or sys.stdin, str((base or Path()).absolute()))
    target = _resolved(source)
    if target.startswith("s3://"):
        from producer.sources.s3 import under_prefix  # boto3 is slow to import: only for those who need it

        return under_prefix(target)
    return _local(target, base, column)


def _resolved(source: str) -> str:
    # Path would take a slash away from s3://.
    return resolve(os.path.expanduser(source), str(Path.cwd()))  # noqa: PTH111


def place(source: str) -> str | None:
    """What the uris of all images of a source begin with; None for a list or one file, which is no place."""
    if source == "-":
        return None
    target = _resolved(source)
    if target.startswith("s3://"):
        return target
    return as_folder(file_uri(target)) if Path(target).is_dir() else None


def _local(path: str, base: Path | None, column: str | None) -> Iterator[Reference]:
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 -- paths are strings here: Path is slow by the million
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceError(f"there is no file or folder {path!r}.") from error
    except OSError as error:
        raise SourceError(f"cannot read {path!r}: {error.strerror}.") from error
    if stat.S_ISDIR(mode):
        return in_folder(path)
    if is_manifest(path):
        return in_manifest(path, str(base.absolute()) if base else str(Path(path).parent), column)
    if stat.S_ISREG(mode):
        return iter([local_reference(path)])
    raise SourceError(f"{path!r} is neither a file nor a folder.")
