"""Many small files: in a folder, beside the images, or below a prefix in S3."""

import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from db.errors import StopError
from db.names.uris import file_path
from producer.uris import split_s3
from tagonce.export.destinations import S3, in_s3
from tagonce.whole_files import whole_path

if TYPE_CHECKING:
    from producer.storage.uploads import Bucket

THREADS = 32
"""Objects uploaded in parallel: each upload is mostly waiting."""
LONGEST_NAME = 255
"""Bytes in a file name, in most file systems."""
LONGEST_KEY = 1024
"""Bytes in a key of S3."""


class Files(Protocol):
    """Where small files are written."""

    threads: int
    """Files worth writing in parallel."""
    label: str
    """The destination, in words."""

    def full_name(self, relative: str) -> str | None:
        """The name for the other methods; None if a file cannot have it."""

    def has(self, name: str) -> bool: ...

    def is_source(self, name: str) -> bool:
        """Whether it is a registered image, under this name or another one."""

    def is_ours(self, name: str, /) -> bool:
        """Whether this export wrote it, under another name: folders may be links, and file systems ignore case."""

    def equals(self, name: str, content: bytes) -> bool:
        """Whether the file has this content; False if unknown."""

    def read(self, name: str) -> bytes | None:
        """The content of a file that exists; None if it is not a regular file."""

    def write(self, name: str, content: bytes) -> None: ...


class LocalFiles:
    """Files below a folder, or with None by absolute path.

    Args:
        folder: created with the first file.
        sources: uris of the registered images that have the extension of the files.
    """

    threads = 1

    def __init__(self, folder: Path | None, sources: Collection[str] = ()) -> None:
        self._folder = folder.absolute() if folder else None
        self._sources = {file_path(uri) for uri in sources if uri.startswith("file://")}
        self._written: set[int] = set()  # hashes of identities
        self.label = str(self._folder) if self._folder else "beside the images"

    def full_name(self, relative: str) -> str | None:
        name = str(self._folder / relative) if self._folder else relative
        return None if any(len(os.fsencode(part)) > LONGEST_NAME for part in name.split("/")) else name

    def has(self, name: str) -> bool:
        return os.path.lexists(name)

    def is_source(self, name: str) -> bool:
        return name in self._sources or (bool(self._identities) and _identity(name) in self._identities)

    def is_ours(self, name: str) -> bool:
        return hash(_identity(name)) in self._written

    def equals(self, name: str, content: bytes) -> bool:
        return _facts(name).st_size == len(content) and self.read(name) == content

    def read(self, name: str) -> bytes | None:
        if not stat.S_ISREG(_facts(name).st_mode):
            return None
        try:
            return Path(name).read_bytes()
        except OSError as error:
            raise StopError(f"Cannot read {name}, which exists: {error.strerror}.") from error

    def write(self, name: str, content: bytes) -> None:
        with whole_path(Path(name)) as path:
            path.write_bytes(content)
        self._written.add(hash(_identity(name)))

    @cached_property
    def _identities(self) -> set[tuple[int, int]]:
        return {identity for path in self._sources if (identity := _identity(path))}


class S3Files:
    """Objects below a prefix of a bucket.

    Args:
        bucket: to write to.
        prefix: ends with a slash, or is empty.
        sources: see `LocalFiles`.
    """

    threads = THREADS

    def __init__(self, bucket: "Bucket", prefix: str, sources: Collection[str] = ()) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._sources = {key for name, key in map(split_s3, sources) if name == bucket.name}
        self.label = f"{S3}{bucket.name}/{prefix}"
        # One listing, in hashes to save memory: a request for each object would be a thousand times more of them.
        self._there = {hash(key): hash(etag) for key, etag in bucket.listing(prefix)}

    def full_name(self, relative: str) -> str | None:
        key = self._prefix + relative
        # A path that is not UTF-8 has surrogates here, which no key can contain.
        return key if len(key.encode("utf-8", "replace")) <= LONGEST_KEY and _is_text(key) else None

    def has(self, name: str) -> bool:
        return hash(name) in self._there

    def is_source(self, name: str) -> bool:
        return name in self._sources

    def is_ours(self, _name: str) -> bool:
        return False  # a key has one spelling and no links

    def equals(self, name: str, content: bytes) -> bool:
        # The ETag of a small object is its MD5, unless KMS encrypts it.
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return self._there.get(hash(name)) == hash(f'"{etag}"')

    def read(self, name: str) -> bytes | None:
        return self._bucket.get(name)

    def write(self, name: str, content: bytes) -> None:
        self._bucket.put(name, content)


@contextmanager
def small_files(out: str | None, sources: Collection[str] = ()) -> Iterator[Files]:
    """The destination of sidecars: a folder, an S3 prefix, or with None beside the images."""
    if out is None or not in_s3(out):
        yield LocalFiles(Path(out) if out is not None else None, sources)
        return
    from producer.storage.uploads import Bucket

    name, prefix = split_s3(out)
    with Bucket(name, threads=THREADS) as bucket:
        yield S3Files(bucket, prefix + "/" if prefix and not prefix.endswith("/") else prefix, sources)


_NOTHING = os.stat_result((0,) * 10)


def _facts(name: str) -> os.stat_result:
    """`os.stat`; zeros for a file that does not exist, also behind a link."""
    try:
        return os.stat(name)  # noqa: PTH116 - paths are strings here: Path is slow by the million
    except OSError:
        return _NOTHING


def _identity(name: str) -> tuple[int, int] | None:
    """Device and inode: equal for all names of a file."""
    facts = _facts(name)
    return None if facts is _NOTHING else (facts.st_dev, facts.st_ino)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
