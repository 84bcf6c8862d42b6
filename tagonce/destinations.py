"""Where exports go: standard output, a file or a folder of this machine, an object or a prefix in S3.

Whatever it is, what is written is there whole or not at all.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from db.errors import SettingsError
from db.export.images import whole_path
from producer.references import split_s3

if TYPE_CHECKING:
    from producer.uploads import Bucket

S3 = "s3://"
EXIT_BROKEN_PIPE = 141
"""What a shell says of a command whose reader went away."""
THREADS = 32
"""Small objects put at once: the time of each is waiting."""


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
    from producer.uploads import Bucket

    name, key = split_s3(out)
    if not key or key.endswith("/"):
        raise SettingsError(f"--out {out} is a prefix; this format is one object. Name it, as in {S3}{name}/tags.jsonl")
    with Bucket(name) as bucket, tempfile.TemporaryDirectory(prefix="tagonce-") as folder:
        path = Path(folder) / "object"
        yield path
        bucket.upload(path, key)


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


LONGEST_NAME = 255
"""Bytes that file systems give a name."""
LONGEST_KEY = 1024
"""Bytes that S3 gives a key."""


class Files(Protocol):
    """Many small files under names of their own."""

    threads: int
    """How many may be written at once to advantage."""
    label: str
    """Where that is."""

    def full_name(self, relative: str) -> str | None:
        """What the other methods call a file; None when it cannot be called so."""

    def has(self, name: str) -> bool: ...

    def read(self, name: str) -> str: ...

    def write(self, name: str, text: str) -> None: ...


class LocalFiles:
    """Below a folder, or (None) anywhere by absolute path."""

    threads = 1

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder.absolute() if folder else None
        self.label = str(self._folder) if self._folder else "beside the images"

    def full_name(self, relative: str) -> str | None:
        name = str(self._folder / relative) if self._folder else relative
        return None if any(len(os.fsencode(part)) > LONGEST_NAME for part in name.split("/")) else name

    def has(self, name: str) -> bool:
        return os.path.lexists(name)

    def read(self, name: str) -> str:
        return Path(name).read_text(encoding="utf-8", errors="surrogateescape")

    def write(self, name: str, text: str) -> None:
        write_text(name, text)


class Objects:
    """Below a prefix of a bucket.

    Args:
        bucket: to write to.
        prefix: ends with a slash, or is empty.
        look: learn first what is there; not needed when everything is replaced.
    """

    threads = THREADS

    def __init__(self, bucket: "Bucket", prefix: str, *, look: bool) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self.label = f"{S3}{bucket.name}/{prefix}"
        # Hashes: a thousandth of the requests that asking for each would be, and little memory.
        self._there = {hash(key) for key in bucket.keys(prefix)} if look else set()

    def full_name(self, relative: str) -> str | None:
        key = self._prefix + relative
        # A path that is no UTF-8 has surrogates here, and no key can hold them.
        return key if len(key.encode("utf-8", "replace")) <= LONGEST_KEY and _is_text(key) else None

    def has(self, name: str) -> bool:
        return hash(name) in self._there

    def read(self, name: str) -> str:
        return self._bucket.get(name).decode("utf-8", "surrogateescape")

    def write(self, name: str, text: str) -> None:
        self._bucket.put(name, text.encode("utf-8", "surrogateescape"))


@contextmanager
def small_files(out: str | None, *, look: bool) -> Iterator[Files]:
    """Where the sidecars go: a folder, an S3 prefix, or (None) beside the images."""
    if out is None or not in_s3(out):
        yield LocalFiles(Path(out) if out is not None else None)
        return
    from producer.uploads import Bucket

    name, prefix = split_s3(out)
    with Bucket(name, threads=THREADS) as bucket:
        yield Objects(bucket, prefix + "/" if prefix and not prefix.endswith("/") else prefix, look=look)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
