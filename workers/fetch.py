"""Fetch: from a reference to the bytes of the file. Every way in which storage says no is given its reason here."""

import errno
import os
import stat
from functools import cached_property
from typing import TYPE_CHECKING

import stamina
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from urllib3.exceptions import HTTPError

from db.errors import ImageError, Reason, SettingsError, TransientError
from producer.references import file_path, split_s3
from producer.storage import FORBIDDEN, REJECTED_CREDENTIALS, http_status, s3_client

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

ATTEMPTS = 3
"""On top of botocore's own retries, which end where the body of the answer begins."""

_MISSING = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
_NO_SUCH_NAME = {errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR}


class Fetcher:
    """Reads local files and S3 objects. Threads share it, and its one S3 client.

    Args:
        max_bytes: larger files are refused before they are read.
        connections: open connections to S3; as many as there are threads.
    """

    def __init__(self, *, max_bytes: int, connections: int) -> None:
        self._max_bytes = max_bytes
        self._connections = connections

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
            return self._read_object(*split_s3(uri))
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

    @cached_property
    def _s3(self) -> "S3Client":
        # Made on first use: a worker on a local folder needs no credentials. boto3's clients are thread-safe.
        return s3_client(max_pool_connections=self._connections)

    def _read_object(self, bucket: str, key: str) -> bytes:
        try:
            answer = self._s3.get_object(Bucket=bucket, Key=key)
            self._check_size(answer["ContentLength"])
            return answer["Body"].read()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in _MISSING:
                raise ImageError(Reason.MISSING, f"no such object ({code})") from error
            if code in REJECTED_CREDENTIALS:
                # Not this image's fault, and the next one would fare no better.
                raise SettingsError(
                    f"S3 rejects the credentials for bucket {bucket!r} ({code}): check AWS_ACCESS_KEY_ID, "
                    "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or AWS_PROFILE."
                ) from error
            if http_status(error) == FORBIDDEN:
                raise ImageError(Reason.DENIED, f"S3 refuses access to this object ({code})") from error
            raise TransientError(f"S3 answered {code}: {error}") from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise SettingsError(
                f"There are no complete S3 credentials to read bucket {bucket!r} with: set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
            ) from error
        except ParamValidationError as error:
            raise ImageError(Reason.MISSING, "no bucket or object can have this name") from error
        except (BotoCoreError, HTTPError, OSError) as error:
            raise TransientError(f"S3 did not deliver: {error}") from error

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise ImageError(
                Reason.TOO_LARGE, f"the file has {size:,} bytes, the limit is {self._max_bytes:,} (TAGONCE_MAX_BYTES)"
            )
