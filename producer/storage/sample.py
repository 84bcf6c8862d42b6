"""Checks of access to storage by reading a byte or a key, without the packages of a worker and with one retry."""

from db.names.uris import file_path
from producer.uris import split_s3

_FILE = "file://"


def read_some(uri: str) -> int:
    """Read the first byte of an image. Returns the number of bytes read: 0 if the file is empty.

    Raises:
        OSError: a local file cannot be read, or an object does not exist.
        SourceError, SettingsError: an object cannot be read.
    """
    if uri.startswith(_FILE):
        with open(file_path(uri), "rb", buffering=0) as file:  # noqa: PTH123 -- names need not be text
            return len(file.read(1))
    from producer.storage.s3_client import PROBE_ATTEMPTS, s3_client, s3_errors

    bucket, key = split_s3(uri)
    client = s3_client(max_attempts=PROBE_ATTEMPTS)
    try:
        with s3_errors(bucket):
            try:
                return len(client.get_object(Bucket=bucket, Key=key)["Body"].read(1))
            except client.exceptions.NoSuchKey as error:
                raise FileNotFoundError(uri) from error
    finally:
        client.close()


def is_there(bucket: str, prefix: str) -> bool:
    """Whether a bucket holds an object whose key starts with a prefix.

    Raises:
        SourceError, SettingsError: the bucket cannot be listed.
    """
    from producer.storage.s3_client import PROBE_ATTEMPTS, s3_client, s3_errors

    client = s3_client(max_attempts=PROBE_ATTEMPTS)
    try:
        with s3_errors(bucket):
            return bool(client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1).get("KeyCount"))
    finally:
        client.close()
