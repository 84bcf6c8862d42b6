"""Writes objects to a bucket of S3."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError

from db.errors import SourceError, StopError
from producer.storage.s3_client import FORBIDDEN, NOT_FOUND, check_endpoint, http_status, s3_client, s3_errors


class Bucket:
    """A bucket to write to, safe to share between threads. An object is written completely or not at all.

    Every method raises StopError if the storage refuses or does not answer.

    Args:
        name: of the bucket.
        threads: number of threads that use it concurrently.

    Raises:
        StopError: the storage does not answer, there are no credentials, or there is no such bucket.
    """

    def __init__(self, name: str, *, threads: int = 1) -> None:
        self.name = name
        with _writing(name):
            check_endpoint(name)
        self._client = s3_client(max_pool_connections=threads)
        with _writing(name):
            try:
                self._client.head_bucket(Bucket=name)
            except ClientError as error:
                if http_status(error) == NOT_FOUND:
                    raise StopError(f"There is no bucket {name!r}: check --out and AWS_ENDPOINT_URL_S3.") from error
                # Credentials that may write need not be allowed to HEAD the bucket: the first write shows it.

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def listing(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Key and ETag, with its quotes, of every object whose key starts with a prefix."""
        with _writing(self.name):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
            for page in pages:
                for found in page.get("Contents", ()):
                    yield found["Key"], found["ETag"]

    def head(self, key: str) -> dict[str, str] | None:
        """The metadata of an object; None if it does not exist."""
        with _writing(self.name):
            try:
                return self._client.head_object(Bucket=self.name, Key=key)["Metadata"]
            except ClientError as error:
                # Without the right to list a bucket, a missing object is "forbidden" (403).
                if http_status(error) == NOT_FOUND:
                    return None
                raise

    def get(self, key: str) -> bytes:
        with _writing(self.name):
            return self._client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def put(self, key: str, content: bytes) -> None:
        with _writing(self.name):
            self._client.put_object(Bucket=self.name, Key=key, Body=content)

    def delete(self, key: str) -> None:
        with _writing(self.name):
            self._client.delete_object(Bucket=self.name, Key=key)

    def upload(self, path: Path, key: str, metadata: dict[str, str]) -> None:
        """Upload a file of any size, a large one in parts."""
        with _writing(self.name):
            try:
                self._client.upload_file(str(path), self.name, key, ExtraArgs={"Metadata": metadata})
            except S3UploadFailedError as error:
                # boto3 wraps botocore's error and keeps it as the context.
                if isinstance(error.__context__, ClientError):
                    raise error.__context__ from error
                raise StopError(f"Cannot write to s3://{self.name}/{key}: {error}.") from error


@contextmanager
def _writing(bucket: str) -> Iterator[None]:
    try:
        with s3_errors(bucket):
            yield
    except SourceError as error:
        refusal = error.__cause__
        if isinstance(refusal, ClientError) and http_status(refusal) == FORBIDDEN:
            raise StopError(
                f"S3 denies writing to bucket {bucket!r} ({refusal}): the credentials need s3:PutObject and "
                "s3:GetObject on it, and s3:ListBucket to list it."
            ) from refusal
        raise StopError(f"Cannot write to bucket {bucket!r}: {error}") from refusal
