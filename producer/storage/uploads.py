"""Writing to S3: whole objects, one bucket, with errors that say what to do."""

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
    """A bucket to write to. Threads may share it; an object is there whole or not at all.

    Args:
        name: of the bucket.
        threads: how many may use it at once.

    Raises:
        StopError: nothing answers, there are no credentials, or there is no such bucket.
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
                # Whoever may write need not be one who may look at the bucket: the first write tells.

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def listing(self, prefix: str) -> Iterator[tuple[str, str]]:
        """The key and the ETag, with its quotes, of every object whose key begins with a prefix."""
        with _writing(self.name):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
            for page in pages:
                for found in page.get("Contents", ()):
                    yield found["Key"], found["ETag"]

    def head(self, key: str) -> dict[str, str] | None:
        """The metadata of an object, None when there is none."""
        with _writing(self.name):
            try:
                return self._client.head_object(Bucket=self.name, Key=key)["Metadata"]
            except ClientError as error:
                # Whoever may not list a bucket is told "forbidden" of what is not there, too.
                if http_status(error) == NOT_FOUND:
                    return None
                raise

    def get(self, key: str) -> bytes:
        with _writing(self.name):
            return self._client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def put(self, key: str, content: bytes) -> None:
        with _writing(self.name):
            self._client.put_object(Bucket=self.name, Key=key, Body=content)

    def upload(self, path: Path, key: str, metadata: dict[str, str]) -> None:
        """A file of any size, in parts where it is large."""
        with _writing(self.name):
            try:
                self._client.upload_file(str(path), self.name, key, ExtraArgs={"Metadata": metadata})
            except S3UploadFailedError as error:
                # boto3 wraps what botocore said and keeps it as the context.
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
                f"S3 does not let us write to bucket {bucket!r} ({refusal}): the credentials need s3:PutObject and "
                "s3:GetObject on it, and s3:ListBucket to see what is there."
            ) from refusal
        raise StopError(f"Cannot write to bucket {bucket!r}: {error}") from refusal
