"""Read a little of one image, to see whether we may: without the worker's tools, and with little patience."""

from producer.references import file_path, split_s3

_FILE = "file://"


def read_some(uri: str) -> int:
    """A byte of it, or none where it is empty; returns how many.

    Raises:
        OSError: a local file cannot be read; of an object only that it is not there.
        SourceError, SettingsError: an object cannot.
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
    """Whether a bucket can be listed and holds anything with this prefix.

    Raises:
        SourceError, SettingsError: it cannot be listed.
    """
    from producer.storage.s3_client import PROBE_ATTEMPTS, s3_client, s3_errors

    client = s3_client(max_attempts=PROBE_ATTEMPTS)
    try:
        with s3_errors(bucket):
            return bool(client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1).get("KeyCount"))
    finally:
        client.close()
