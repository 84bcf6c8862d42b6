"""Reads the file of a reference, or gives the reason why it cannot. `workers.storage.s3` reads S3."""

import errno
import os
import stat
import time

import stamina

from db.errors import ImageError, Reason, TransientError
from db.names.uris import file_path
from producer.uris import split_s3
from workers.storage.roots import Roots
from workers.storage.s3 import S3Objects

# Thousands of retries are not logged one by one; the final failure is recorded with its reason.
stamina.instrumentation.set_on_retry_hooks([])

ATTEMPTS = 3
"""In addition to boto3's retries (`workers.storage.s3`), which do not cover the body of an answer."""

RECENT_SECONDS = 10.0
"""A storage that delivered another object within this time counts as available. One attempt may take minutes."""

_FILE, _S3 = "file://", "s3://"
_NO_SUCH_NAME = {errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_NO_FILE = {errno.EISDIR, errno.ENXIO}
"""Errors of opening a folder or a socket."""


class Fetcher:
    """Reads local files and S3 objects. Threads share it.

    Args:
        max_bytes: larger files are refused before they are read.
        connections: open connections to S3; as many as there are threads.
        roots: files outside are refused. None: no limit.
    """

    def __init__(self, *, max_bytes: int, connections: int, roots: Roots | None = None) -> None:
        self._max_bytes = max_bytes
        self._roots = roots or Roots([])
        self._objects = S3Objects(connections=connections, check_size=self._check_size)

    def fetch(self, uri: str) -> bytes:
        """Read the whole file.

        Raises:
            ImageError: `missing`, `denied`, `too_large`, `unsupported`, or `timeout` if the storage failed repeatedly.
            TransientError: the storage fails for all objects, so the image is not the cause.
            SettingsError: the S3 client cannot be used, so the image is not the cause.
        """
        begun = time.monotonic()
        try:
            return self._read(uri)  # outside of stamina, which takes longer than to read a small file
        except TransientError as error:
            return self._read_again(uri, error, begun)

    def _read_again(self, uri: str, error: TransientError, begun: float) -> bytes:
        """The attempts after the first one, which failed with this error."""
        first: TransientError | None = error
        try:
            for attempt in stamina.retry_context(on=TransientError, attempts=ATTEMPTS, timeout=60):
                with attempt:
                    if first is not None:
                        failed, first = first, None
                        raise failed
                    begun = time.monotonic()
                    return self._read(uri)
        except TransientError as last:
            # Since the last attempt, not the first: others may have been delivered before the storage failed.
            since = max(begun, time.monotonic() - RECENT_SECONDS)
            if uri.startswith(_S3) and self._objects.is_away(split_s3(uri)[0], since=since):
                raise
            raise ImageError(Reason.TIMEOUT, str(last)) from last
        raise AssertionError("unreachable: a retry context ends with a result or an error")

    def _read(self, uri: str) -> bytes:
        if uri.startswith(_FILE):
            return self._read_file(file_path(uri))
        if uri.startswith(_S3):
            self._roots.check_object(uri)
            bucket, key = split_s3(uri)
            if ":" in bucket:  # boto3 takes an ARN, which may lead to other regions and accounts
                raise ImageError(Reason.MISSING, "no bucket can have this name")
            return self._objects.read(bucket, key)
        raise ImageError(Reason.UNSUPPORTED, f"tagonce reads file:// and s3:// references, not {uri[:40]!r}")

    def _read_file(self, path: str) -> bytes:
        try:
            # Checks use the open descriptor, so that they apply to the file that is read.
            with open(path, "rb", opener=self._roots.opener) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise _not_regular()
                self._check_size(status.st_size)
                data = file.read(status.st_size + 1)
        except ValueError as error:  # a NUL in the name
            raise ImageError(Reason.MISSING, "no such file") from error
        except PermissionError as error:
            raise ImageError(Reason.DENIED, "the worker may not read this file") from error
        except OSError as error:
            if error.errno in _NO_SUCH_NAME:
                raise ImageError(Reason.MISSING, "no such file") from error
            if error.errno in _NO_FILE:
                raise _not_regular() from error
            raise TransientError(f"reading failed: {error.strerror or error}") from error
        if len(data) > status.st_size:
            raise TransientError("the file is being written")
        return data

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise ImageError(
                Reason.TOO_LARGE, f"the file has {size:,} bytes, the limit is {self._max_bytes:,} (TAGONCE_MAX_BYTES)"
            )


def _not_regular() -> ImageError:
    return ImageError(Reason.UNSUPPORTED, "not a regular file")
