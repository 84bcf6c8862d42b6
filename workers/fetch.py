"""Fetch: from a reference to the bytes of the file, or to the reason why there are none. `workers.objects` reads S3."""

import errno
import os
import stat

import stamina

from db.errors import ImageError, Reason, TransientError
from producer.references import file_path, split_s3
from workers.objects import Objects

ATTEMPTS = 3
"""On top of boto3's own retries (`workers.objects`), which end where the body of the answer begins."""

_NO_SUCH_NAME = {errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR}


class Fetcher:
    """Reads local files and S3 objects. Threads share it.

    Args:
        max_bytes: larger files are refused before they are read.
        connections: open connections to S3; as many as there are threads.
    """

    def __init__(self, *, max_bytes: int, connections: int) -> None:
        self._max_bytes = max_bytes
        self._objects = Objects(connections=connections, check_size=self._check_size)

    def fetch(self, uri: str) -> bytes:
        """The whole file.

        Raises:
            ImageError: `missing`, `denied`, `too_large`, `unsupported`, or `timeout` when storage kept failing.
            SettingsError: S3 cannot be asked at all, which is no fault of the image.
        """
        try:
            for attempt in stamina.retry_context(on=TransientError, attempts=ATTEMPTS, timeout=60):
                with attempt:
                    return self._read(uri)
        except TransientError as error:
            raise ImageError(Reason.TIMEOUT, str(error)) from error
        raise AssertionError("unreachable: a retry context ends with a result or an error")

    def _read(self, uri: str) -> bytes:
        if uri.startswith("file://"):
            return self._read_file(file_path(uri))
        if uri.startswith("s3://"):
            return self._objects.read(*split_s3(uri))
        raise ImageError(Reason.UNSUPPORTED, f"tagonce reads file:// and s3:// references, not {uri[:40]!r}")

    def _read_file(self, path: str) -> bytes:
        try:
            status = os.stat(path)  # noqa: PTH116 - bytes that are no UTF-8 pass through here unharmed
            if not stat.S_ISREG(status.st_mode):  # opening a pipe or a device could wait for ever
                raise ImageError(Reason.UNSUPPORTED, "not a regular file")
            self._check_size(status.st_size)
            with open(path, "rb") as file:  # noqa: PTH123
                return file.read()
        except ValueError as error:  # a NUL in the name
            raise ImageError(Reason.MISSING, "no such file") from error
        except PermissionError as error:
            raise ImageError(Reason.DENIED, "the worker may not read this file") from error
        except OSError as error:
            if error.errno in _NO_SUCH_NAME:
                raise ImageError(Reason.MISSING, "no such file") from error
            raise TransientError(f"reading failed: {error.strerror or error}") from error

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise ImageError(
                Reason.TOO_LARGE, f"the file has {size:,} bytes, the limit is {self._max_bytes:,} (TAGONCE_MAX_BYTES)"
            )
