"""Reads objects of S3 with obstore, and with boto3 where obstore fails.

boto3 holds Python's interpreter lock for nearly all of its work on an object, so more threads do not read faster than
one. obstore, which is Rust, holds it for a small part of the time (`bench/fetch.py`).

boto3 reads the first object of a bucket; obstore copies endpoint and region from its request (`obstore_like_boto3`). If
obstore fails, for whatever reason, boto3 reads the object with its retries, and its answer is final. So a failure costs
one more request, and errors are always those of boto3.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import closing
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
"""A bucket that did not answer is not probed again for so long."""

log = logging.getLogger(__name__)


class S3Objects:
    """Reads objects. Threads share it, and its one S3 client.

    Args:
        connections: open connections to S3; as many as there are threads.
        check_size: called with the size of an object before it is read; raises ImageError if it is too large.
    """

    def __init__(self, *, connections: int, check_size: Callable[[int], None]) -> None:
        self._connections = connections
        self._check_size = check_size
        self._lock = threading.Lock()
        self._sent = threading.local()
        self._by_bucket: dict[str, S3Store | None] = {}
        """None for a bucket that boto3 alone reads."""
        self._proven: set[str] = set()
        """Buckets from which obstore has read an object."""
        self._answered_at = -math.inf
        """When an object of any bucket was last read (monotonic clock)."""
        self._away_at: dict[str, float] = {}
        """When a bucket last failed to answer a probe (monotonic clock)."""
        self._probing = threading.Lock()

    def read(self, bucket: str, key: str) -> bytes:
        """Read the whole object.

        Raises:
            ImageError: `missing`, `denied`, or what `check_size` raises.
            TransientError: S3 was busy or did not answer for longer than boto3 retries.
            SettingsError: credentials or settings are invalid, so the object is not the cause.
        """
        data = self._read(bucket, key)
        self._answered_at = time.monotonic()
        return data

    def is_away(self, bucket: str, *, since: float) -> bool:
        """Whether the storage fails for all objects, not for one object or bucket.

        That is so if no object of any bucket was read since `since` (monotonic clock), and the bucket does not answer a
        HEAD.
        """
        if self._answered_at >= since:
            return False
        with self._probing:  # a single thread probes for all threads that failed
            if time.monotonic() - self._away_at.get(bucket, -math.inf) < AWAY_FOR_SECONDS:
                return True
            if answers(bucket):
                return False
            self._away_at[bucket] = time.monotonic()
        return True

    def _read(self, bucket: str, key: str) -> bytes:
        store = self._by_bucket.get(bucket)
        if not store or not can_name(key):
            return self._read_with_boto3(bucket, key)
        try:
            answer = obstore.get(store, key)
            self._check_size(answer.meta["size"])
            data = answer.bytes().to_bytes()
        except (BaseError, OSError, ValueError) as error:
            data = self._read_with_boto3(bucket, key)
            self._give_up_obstore(bucket, error)
        else:
            self._proven.add(bucket)
        return data

    def _give_up_obstore(self, bucket: str, error: Exception) -> None:
        """Stop using obstore for a bucket where only boto3 works: it would fail each time, maybe after a timeout."""
        if bucket not in self._proven:
            self._by_bucket[bucket] = None
            log.warning("Bucket %r is read by boto3 alone, which is slower, because obstore fails: %s", bucket, error)

    def _read_with_boto3(self, bucket: str, key: str) -> bytes:
        """Read the object with boto3."""
        try:
            answer = self._s3.get_object(Bucket=bucket, Key=key)
            # Closed: the connection of an object that is too large would stay open until garbage collection.
            with closing(answer["Body"]) as body:
                self._check_size(answer["ContentLength"])
                data = body.read()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in _MISSING:
                raise ImageError(Reason.MISSING, f"no such object ({code})") from error
            if code in REJECTED_CREDENTIALS:
                # Not caused by this image; the next one would fail too.
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
        """Create the store of a bucket from the request that boto3 sent last in this thread."""
        with self._lock:
            if bucket not in self._by_bucket and can_name(key):
                self._by_bucket[bucket] = self._stores.like(self._sent.request, bucket, key)

    @cached_property
    def _s3(self) -> "S3Client":
        # Created on first use: a worker on local folders needs no credentials. boto3's clients are thread-safe.
        client = s3_client(max_pool_connections=self._connections)
        client.meta.events.register("before-send.s3.GetObject", self._note)
        return client

    def _note(self, request: AWSPreparedRequest, **_: Any) -> None:
        """Keep the request. boto3 calls this before each attempt, in the thread that reads."""
        self._sent.request = request

    @cached_property
    def _stores(self) -> Stores:
        return Stores(self._s3.meta.config)
