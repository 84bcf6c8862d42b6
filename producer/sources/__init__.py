"""Sources of references: folders, files, S3 prefixes, and lists of any of these."""

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from db.errors import SourceError
from db.ledger.images import Reference
from db.names.uris import file_uri
from producer.sources.addresses import resolve
from producer.sources.extensions import is_image, refuse_other
from producer.sources.folder import in_folder, local_reference
from producer.sources.manifest import in_manifest, in_stream, is_manifest
from producer.sources.name_filter import NameFilter
from producer.uris import as_folder, path_or_uri, split_s3

__all__ = ["NameFilter", "is_list", "place", "references"]


def references(
    source: str,
    *,
    base: Path | None = None,
    column: str | None = None,
    null: bool = False,
    stdin: TextIO | None = None,
    names: NameFilter | None = None,
) -> Iterator[Reference]:
    """Every image of a source, one at a time, since there may be millions.

    Args:
        source: a folder, a file, `s3://bucket/prefix`, a manifest (.txt, .list, .csv, .tsv, .jsonl, .ndjson,
            .parquet) on disk or in S3, or `-` for a list on standard input.
        base: folder of relative references in a list; by default that of the manifest, for standard input the
            current one.
        column: the column of a manifest that holds the references; by default the first of `spellings.COLUMNS` that
            it has. Ignored for sources without columns.
        null: references in a list, on standard input or in a file, are separated by NUL, as by `find -print0`.
        stdin: read instead of sys.stdin.
        names: selects names, and counts the others.

    Raises:
        SourceError: at once if the source cannot be opened; while iterating if reading fails or it has no image.
    """
    names = names or NameFilter()
    start = str((base or Path()).absolute())
    if source == "-":
        return _kept(in_stream(stdin or sys.stdin, start, null=null), names, start)
    target = _resolved(source)
    if target.startswith("s3://"):
        return _remote(target, str(base.absolute()) if base else None, column, names, null=null)
    return _local(target, base, column, names, null=null)


def is_list(source: str) -> bool:
    """Whether a source is a list, whose order its author chose."""
    return source == "-" or is_manifest(source)


def place(source: str) -> str | None:
    """URI prefix of all images of a source; None for a list or a single file."""
    if is_list(source):
        return None
    target = _resolved(source)
    if target.startswith("s3://"):
        return target
    return as_folder(file_uri(target)) if Path(target).is_dir() else None


def _resolved(source: str) -> str:
    # Path would turn s3:// into s3:/.
    return resolve(os.path.expanduser(source), str(Path.cwd()))  # noqa: PTH111


def _remote(uri: str, base: str | None, column: str | None, names: NameFilter, *, null: bool) -> Iterator[Reference]:
    from producer.sources.s3 import listed_in, under_prefix  # boto3 is slow to import

    if is_manifest(uri):
        listed = listed_in(uri, base, column, null=null)
        if listed is not None:
            return _kept(listed, names, base or uri.rpartition("/")[0])
    elif not names.all_names:
        refuse_other(uri)
    return under_prefix(uri, names)


def _local(path: str, base: Path | None, column: str | None, names: NameFilter, *, null: bool) -> Iterator[Reference]:
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 -- paths are strings here: Path is slow by the million
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceError(f"there is no file or folder {path!r}.") from error
    except OSError as error:
        raise SourceError(f"cannot read {path!r}: {error.strerror}.") from error
    if stat.S_ISDIR(mode):
        return in_folder(path, names)
    if is_manifest(path) or (null and stat.S_ISREG(mode) and not is_image(path)):
        start = str(base.absolute()) if base else str(Path(path).parent)
        return _kept(in_manifest(path, start, column, null=null), names, start)
    if not stat.S_ISREG(mode):
        raise SourceError(f"{path!r} is neither a file nor a folder.")
    if not names.all_names:
        refuse_other(path)
    return iter([local_reference(path)])


def _kept(found: Iterator[Reference], names: NameFilter, start: str) -> Iterator[Reference]:
    """The references of a list that no pattern of the user excludes."""
    if not names.has_patterns:
        return found

    def relative(uri: str) -> str:
        place = path_or_uri(uri)
        inside = place.removeprefix(start)
        if inside == place and uri.startswith("s3://"):
            return split_s3(uri)[1]
        return inside.lstrip("/")

    return (reference for reference in found if names.keep(relative(reference.uri)))
