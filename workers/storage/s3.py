"""Objects in S3. obstore reads them; boto3 knows the way there, and has the last word.

Of boto3's work for an object nearly all is done with Python's lock in hand, so that a process reads no faster with more
threads than with one. obstore, which is Rust, holds it for a small part of that (`bench/fetch.py`).

The first object of a bucket is read by boto3, and the request that it sent in the end shows obstore the way to those
that follow. Where obstore fails, for whatever reason, boto3 is asked for that object: it retries, and what it says is
what counts. A failure takes one request more for that, and means what boto3 says it means.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import obstore
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from obstore.exceptions import BaseError
from obstore.store import S3Store
from urllib3.exceptions import HTTPError

from db.errors import ImageError, Reason, SettingsError, TransientError
from producer.storage.s3_client import (
    FORBIDDEN,
    REJECTED_CREDENTIALS,
    answers,
    http_status,
    no_credentials,
    s3_client,
)
from workers.storage.obstore_like_boto3 import Stores, can_name

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_MISSING = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}

AWAY_FOR_SECONDS = 5.0
"""A bucket that did not answer is not asked again before."""

log = logging.getLogger(__name__)


class S3Objects:
    """Reads objects. Threads share it, and its one S3 client.

    Args:
        connections: open connections to S3; as many as there are threads.
        check_size: is told the bytes of an object before they are read, and raises where they are too many.
    """

    def __init__(self, *, connections: int, check_size: Callable[[int], None]) -> None:
        self._connections = connections
        self._check_size = check_size
        self._lock = threading.Lock()
        self._sent = threading.local()
        self._by_bucket: dict[str, S3Store | None] = {}
        """None where boto3 reads all."""
        self._proven: set[str] = set()
        """Buckets of which obstore has read an object."""
        self._answered_at = -math.inf
        """When the storage last delivered an object, of whatever bucket, by the monotonic clock."""
        self._away_at: dict[str, float] = {}
        """When a bucket was last asked whether it answers, and did not."""
        self._asking = threading.Lock()

    def read(self, bucket: str, key: str) -> bytes:
        """The whole object.

        Raises:
            ImageError: `missing`, `denied`, or what `check_size` raises.
            TransientError: S3 was busy or away, longer than boto3 retries.
            SettingsError: S3 cannot be asked at all, which is no fault of the object.
        """
        data = self._read(bucket, key)
        self._answered_at = time.monotonic()
        return data

    def is_away(self, bucket: str, *, since: float) -> bool:
        """Whether the storage fails for everything, and not for one object or bucket: it delivered nothing since then
        (monotonic clock), and the bucket does not say a sensible word when it is asked about itself.
        """
        if self._answered_at >= since:
            return False
        with self._asking:  # one thread asks for all of those that have failed
            if time.monotonic() - self._away_at.get(bucket, -math.inf) < AWAY_FOR_SECONDS:
                return True
            if answers(bucket):
                return False
            self._away_at[bucket] = time.monotonic()
        return True

    def _read(self, bucket: str, key: str) -> bytes:
        store = self._by_bucket.get(bucket)
        if not store or not can_name(key):
            return self._ask(bucket, key)
        try:
            answer = obstore.get(store, key)
            self._check_size(answer.meta["size"])
            data = answer.bytes().to_bytes()
        except (BaseError, OSError, ValueError) as error:
            data = self._ask(bucket, key)
            self._doubt(bucket, error)
        else:
            self._proven.add(bucket)
        return data

    def _doubt(self, bucket: str, error: Exception) -> None:
        """Of a store that has never worked where boto3 does: it would fail for every object, after a timeout maybe."""
        if bucket not in self._proven:
            self._by_bucket[bucket] = None
            log.warning("Bucket %r is read by boto3 alone, which is slower, since obstore cannot: %s", bucket, error)

    def _ask(self, bucket: str, key: str) -> bytes:
        """The object, by boto3."""
        try:
            answer = self._s3.get_object(Bucket=bucket, Key=key)
            self._check_size(answer["ContentLength"])
            data = answer["Body"].read()
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
            raise SettingsError(no_credentials(bucket)) from error
        except ParamValidationError as error:
            raise ImageError(Reason.MISSING, "no bucket or object can have this name") from error
        except (BotoCoreError, HTTPError, OSError) as error:
            raise TransientError(f"S3 did not deliver: {error}") from error
        self._learn(bucket, key)
        return data

    def _learn(self, bucket: str, key: str) -> None:
        """The way to a bucket, after boto3 has found it."""
        with self._lock:
            if bucket not in self._by_bucket and can_name(key):
                self._by_bucket[bucket] = self._stores.like(self._sent.request, bucket, key)

    @cached_property
    def _s3(self) -> "S3Client":
        # Made on first use: a worker on a local folder needs no credentials. boto3's clients are thread-safe.
        client = s3_client(max_pool_connections=self._connections)
        client.meta.events.register("before-send.s3.GetObject", self._note)
        return client

    def _note(self, request: AWSPreparedRequest, **_: Any) -> None:
        """Called by boto3, in the thread that asks, for each try."""
        self._sent.request = request

    @cached_property
    def _stores(self) -> Stores:
        return Stores(self._s3.meta.config)
