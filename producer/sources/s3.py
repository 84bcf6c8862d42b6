"""References to objects in S3: all images below a prefix, or one object by its key."""

import logging
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from db.errors import SourceError
from producer.references import Reference, split_s3
from producer.sources.extensions import KNOWN, is_image
from producer.sources.listing import REQUESTS, objects
from producer.storage import FORBIDDEN, NOT_FOUND, check_endpoint, http_status, s3_client, s3_errors

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

logger = logging.getLogger(__name__)


def under_prefix(uri: str) -> Iterator[Reference]:
    """Every image whose key starts with the prefix; and the object, of any extension, with just that key.

    The prefix is taken literally, as S3 does: `s3://bucket/cat` finds `cats/1.png`; a folder ends with `/`.
    They come in no order, since several requests list side by side.
    Raises SourceError when the storage says no or does not answer, or when there is no image.
    """
    bucket, prefix = split_s3(uri)
    check_endpoint(bucket)
    client = s3_client(max_pool_connections=REQUESTS)
    found = other = 0
    with s3_errors(bucket), closing(objects(client, bucket, prefix)) as items:
        for item in items:
            key = item["Key"]
            if key.endswith("/") or not (key == prefix or is_image(key)):
                other += 1
            elif "\0" in key:
                logger.warning("passed over %r in %r: no database can hold its name", key, bucket)
                other += 1
            else:
                found += 1
                yield Reference(f"s3://{bucket}/{key}", item.get("ETag", "").strip('"'), item["Size"])
    if not found:
        raise SourceError(f"no image files in {uri!r} ({other} other objects; known extensions: {KNOWN})")


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
    return Reference(uri, answer.get("ETag", "").strip('"'), answer.get("ContentLength"))
