"""Where exports go: standard output, a file or a folder of this machine, an object or a prefix in S3.

Whatever it is, what is written is there whole or not at all.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from db.errors import SettingsError
from db.export.tagged_images import whole_path
from producer.references import split_s3

if TYPE_CHECKING:
    from producer.storage.uploads import Bucket

S3 = "s3://"
EXIT_BROKEN_PIPE = 141
"""What a shell says of a command whose reader went away."""
SHA256 = "sha256"
"""The name of a digest in the metadata of an object."""


def in_s3(out: str) -> bool:
    return out.startswith(S3)


@contextmanager
def whole(out: str) -> Iterator[Path]:
    """A path to write to; what is there at the end becomes `out`.

    Raises:
        SettingsError: `out` is a bucket or a prefix.
        StopError: it cannot be written.
    """
    if not in_s3(out):
        with whole_path(Path(out)) as path:
            yield path
        return
    with _object(out) as (bucket, key), tempfile.TemporaryDirectory(prefix="tagonce-") as folder:
        path = Path(folder) / "object"
        yield path
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        bucket.upload(path, key, {SHA256: sha256})


@contextmanager
def whole_text(out: str | None) -> Iterator[IO[str]]:
    """The same for text; None is standard output, which gets it as it comes."""
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
        # `| head` has read enough. What is still buffered must not raise once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(EXIT_BROKEN_PIPE) from None


def write_text(out: str, text: str) -> None:
    """One small file or object."""
    with whole_text(out) as file:
        file.write(text)


def read_text(out: str) -> str | None:
    """What a small file or object holds; None when it is not there, or is no text.

    Raises:
        StopError: S3 does not say.
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
    """The SHA-256 of what is there, in hex; None when nothing is, and empty when it is not to be known.

    Of an object it is what its uploader left in its metadata.

    Raises:
        SettingsError: `out` is a bucket or a prefix.
        StopError: S3 does not say.
    """
    if in_s3(out):
        with _object(out) as (bucket, key):
            metadata = bucket.head(key)
            return None if metadata is None else metadata.get(SHA256, "")
    if not os.path.lexists(out):
        return None
    try:
        if not Path(out).is_file():
            return ""  # a pipe would be waited for
        with Path(out).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


@contextmanager
def _object(out: str) -> "Iterator[tuple[Bucket, str]]":
    from producer.storage.uploads import Bucket

    name, key = split_s3(out)
    if not key or key.endswith("/"):
        raise SettingsError(f"--out {out} is a prefix; this format is one object. Name it, as in {S3}{name}/tags.jsonl")
    with Bucket(name) as bucket:
        yield bucket, key
