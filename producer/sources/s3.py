"""References to objects in S3: all images below a prefix, an object by its key, or the entries of a list in S3."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from db.errors import SourceError
from db.ledger.images import Reference
from producer.sources.extensions import extension
from producer.sources.manifest import in_manifest
from producer.sources.name_filter import NameFilter
from producer.sources.s3_listing import REQUESTS, objects
from producer.storage.s3_client import FORBIDDEN, NOT_FOUND, check_endpoint, http_status, s3_client, s3_errors
from producer.uris import split_s3

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

logger = logging.getLogger(__name__)


def under_prefix(uri: str, names: NameFilter) -> Iterator[Reference]:
    """Every image whose key starts with the prefix, and the object with exactly that key, whatever its extension.

    The prefix is taken literally, as by S3: `s3://bucket/cat` matches `cats/1.png`; a folder ends with `/`. The order
    is undefined, since requests run concurrently.

    Raises:
        SourceError: at once if the storage does not answer; while iterating if it refuses or there is no image.
    """
    check_endpoint(split_s3(uri)[0])
    return _under_prefix(uri, names)


def _under_prefix(uri: str, names: NameFilter) -> Iterator[Reference]:
    bucket, prefix = split_s3(uri)
    start = prefix.rfind("/") + 1
    client = s3_client(max_pool_connections=REQUESTS)
    found, other = 0, -names.passed_over
    with s3_errors(bucket), closing(objects(client, bucket, prefix)) as items:
        for item in items:
            key = item["Key"]
            if key.endswith("/"):  # consoles make a folder like this
                other += 1
            elif "\0" in key:
                logger.warning("skipped %r in %r: no database can store its name", key, bucket)
                other += 1
            elif key == prefix or names.take(key[start:]):
                found += 1
                yield _reference(f"s3://{bucket}/{key}", item.get("ETag"), item["Size"])
    if not found:
        raise names.nothing_in(uri, f"{other + names.passed_over} other objects")


def listed_in(uri: str, base: str | None, column: str | None, *, null: bool = False) -> Iterator[Reference] | None:
    """The references of a list in S3, which is downloaded at once. None if there is no such object.

    Args:
        uri: of the list.
        base: folder of relative references; by default that of the list, in its bucket.
        column: see `references`.
        null: see `references`.

    Raises:
        SourceError: the storage refuses or does not answer; while iterating as of `in_manifest`.
    """
    bucket, key = split_s3(uri)
    check_endpoint(bucket)
    client = s3_client()
    folder = tempfile.TemporaryDirectory(prefix="tagonce-list-")
    path = str(Path(folder.name) / f"list.{extension(key)}")
    try:
        with s3_errors(bucket):
            client.download_file(bucket, key, path)
    except SourceError as error:
        folder.cleanup()
        refusal = error.__cause__
        if isinstance(refusal, ClientError) and http_status(refusal) == NOT_FOUND:
            return None
        raise
    finally:
        client.close()
    return _rows(folder, path, uri, base or uri.rpartition("/")[0] + "/", column, null=null)


def _rows(
    folder: "tempfile.TemporaryDirectory[str]", path: str, uri: str, base: str, column: str | None, *, null: bool
) -> Iterator[Reference]:
    with folder:
        try:
            yield from in_manifest(path, base, column, null=null)
        except SourceError as error:  # the message names the list by its URI, not by the temporary file
            raise SourceError(str(error).replace(path, uri)) from error


def is_missing(client: "S3Client", uri: str) -> bool:
    """Whether an object does not exist. One that is denied counts as existing.

    Raises:
        SourceError: any other refusal, or the storage does not answer.
    """
    bucket, key = split_s3(uri)
    with s3_errors(bucket):
        try:
            client.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if http_status(error) in {FORBIDDEN, NOT_FOUND}:
                return http_status(error) == NOT_FOUND
            raise
    return False


def head(client: "S3Client", uri: str) -> Reference:
    """The reference that a listing gives for this object; without a version if it is missing or denied.

    Raises:
        SourceError: any other refusal, or the storage does not answer.
    """
    bucket, key = split_s3(uri)
    with s3_errors(bucket):
        try:
            answer = client.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if http_status(error) in {FORBIDDEN, NOT_FOUND}:
                return Reference(uri, "", None)
            raise
    return _reference(uri, answer.get("ETag"), answer.get("ContentLength"))


def _reference(uri: str, etag: str | None, size: int | None) -> Reference:
    return Reference(uri, (etag or "").strip('"'), size)
