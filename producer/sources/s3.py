"""References to objects in S3: all images below a prefix, one object by its key, or those that a list there names."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from db.errors import SourceError
from producer.references import Reference, split_s3
from producer.sources.extensions import extension
from producer.sources.manifest import in_manifest
from producer.sources.name_filter import Names
from producer.sources.s3_listing import REQUESTS, objects
from producer.storage.s3_client import FORBIDDEN, NOT_FOUND, check_endpoint, http_status, s3_client, s3_errors

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

logger = logging.getLogger(__name__)


def under_prefix(uri: str, names: Names) -> Iterator[Reference]:
    """Every image whose key starts with the prefix; and the object, of any extension, with just that key.

    The prefix is taken literally, as S3 does: `s3://bucket/cat` finds `cats/1.png`; a folder ends with `/`.
    They come in no order, since several requests list side by side.
    Raises SourceError when the storage does not answer, at once; while iterating when it says no or there is no image.
    """
    check_endpoint(split_s3(uri)[0])
    return _under_prefix(uri, names)


def _under_prefix(uri: str, names: Names) -> Iterator[Reference]:
    bucket, prefix = split_s3(uri)
    start = prefix.rfind("/") + 1
    client = s3_client(max_pool_connections=REQUESTS)
    found, other = 0, -names.passed_over
    with s3_errors(bucket), closing(objects(client, bucket, prefix)) as items:
        for item in items:
            key = item["Key"]
            if key.endswith("/"):  # how consoles make a folder
                other += 1
            elif "\0" in key:
                logger.warning("passed over %r in %r: no database can hold its name", key, bucket)
                other += 1
            elif key == prefix or names.take(key[start:]):
                found += 1
                yield _reference(f"s3://{bucket}/{key}", item.get("ETag"), item["Size"])
    if not found:
        raise names.nothing_in(uri, f"{other + names.passed_over} other objects")


def listed_in(uri: str, base: str | None, column: str | None, *, null: bool = False) -> Iterator[Reference] | None:
    """The references of a list that is an object, which is fetched at once. None when there is no such object.

    Args:
        base: where relative references start; by default at the folder of the list, in its bucket.
        null: as of `references`.

    Raises SourceError when the storage says no or does not answer; while iterating as `in_manifest` does.
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
        except SourceError as error:  # of a row, say: people know the list by its own name
            raise SourceError(str(error).replace(path, uri)) from error


def is_missing(client: "S3Client", uri: str) -> bool:
    """Whether there is no such object. One that is denied is there, as far as we know.

    Raises SourceError for every other refusal, and when nothing answers.
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
    """The same Reference as the listing gives for this object. One that is missing or denied has no version.

    Raises SourceError for every other refusal, and when nothing answers.
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
