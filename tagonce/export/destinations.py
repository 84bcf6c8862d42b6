"""Destinations of exports: standard output, a local file or folder, an object or a prefix in S3.

Files and objects are complete or absent, never partly written.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from db.errors import SettingsError, StopError
from producer.uris import split_s3
from tagonce.whole_files import whole_path

if TYPE_CHECKING:
    from producer.storage.uploads import Bucket

S3 = "s3://"
EXIT_BROKEN_PIPE = 141
"""Exit code, in shells, of a command whose output nothing reads any more."""
SHA256 = "sha256"
"""Key of the digest in the metadata of an object."""


def in_s3(out: str) -> bool:
    return out.startswith(S3)


def whole(out: str) -> AbstractContextManager[Path]:
    """A local path to write to; its content becomes the file or object `out` at the end of the block.

    Raises:
        SettingsError: `out` is a bucket or a prefix.
        StopError: `out` cannot be written.
    """
    return _uploaded(out) if in_s3(out) else whole_path(Path(out))


@contextmanager
def _uploaded(out: str) -> Iterator[Path]:
    with _object(out) as (bucket, key), tempfile.TemporaryDirectory(prefix="tagonce-") as folder:
        path = Path(folder) / "object"
        yield path
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        bucket.upload(path, key, {SHA256: sha256})


@contextmanager
def whole_text(out: str | None) -> Iterator[IO[str]]:
    """The same for text. None is standard output, which is written at once."""
    if out is None:
        with _standard_output() as stream:
            yield stream
        return
    with whole(out) as path, path.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        yield file


@contextmanager
def _standard_output() -> Iterator[IO[str]]:
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:
        # `| head` has read enough. Writing the rest of the buffer at exit must not raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(EXIT_BROKEN_PIPE) from None


def write_text(out: str, text: str) -> None:
    """Write a small file or object."""
    with whole_text(out) as file:
        file.write(text)


def read_text(out: str) -> str | None:
    """The text of a small file or object; None if it does not exist or is not UTF-8.

    Raises:
        StopError: S3 does not answer.
    """
    if not in_s3(out):
        try:
            return Path(out).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
    with _object(out) as (bucket, key):
        try:
            return bucket.get(key).decode() if bucket.head(key) is not None else None
        except UnicodeDecodeError:
            return None


def digest(out: str) -> str | None:
    """The SHA-256 of a file or object, in hex; None if it does not exist, empty if it cannot be read.

    That of an object is read from its metadata, where `whole` leaves it.

    Raises:
        SettingsError: `out` is a bucket or a prefix.
        StopError: S3 does not answer.
    """
    if in_s3(out):
        with _object(out) as (bucket, key):
            metadata = bucket.head(key)
            return None if metadata is None else metadata.get(SHA256, "")
    if not os.path.lexists(out):
        return None
    try:
        if not Path(out).is_file():
            return ""  # reading a pipe would block
        with Path(out).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def names_in(folder: str) -> set[str]:
    """The names of the files of a folder, or of the objects below a prefix; none if it does not exist.

    Args:
        folder: ends with a slash.

    Raises:
        StopError: S3 does not answer.
    """
    if not in_s3(folder):
        return set(os.listdir(folder)) if Path(folder).is_dir() else set()  # noqa: PTH208 - names, and not paths
    from producer.storage.uploads import Bucket

    name, prefix = split_s3(folder)
    with Bucket(name) as bucket:
        return {key.removeprefix(prefix) for key, _ in bucket.listing(prefix)}


def remove(out: str) -> None:
    """Delete a file or object, if it exists.

    Raises:
        StopError: it cannot be deleted.
    """
    if in_s3(out):
        with _object(out) as (bucket, key):
            bucket.delete(key)
        return
    try:
        Path(out).unlink(missing_ok=True)
    except OSError as error:
        raise StopError(f"Cannot delete {out}: {error.strerror}. Delete it yourself.") from error


@contextmanager
def _object(out: str) -> "Iterator[tuple[Bucket, str]]":
    from producer.storage.uploads import Bucket

    name, key = split_s3(out)
    if not key or key.endswith("/"):
        raise SettingsError(
            f"--out {out} is a prefix, and this format is one object. Name the object, as in {S3}{name}/tags.jsonl"
        )
    with Bucket(name) as bucket:
        yield bucket, key
