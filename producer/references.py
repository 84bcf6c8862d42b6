"""References: where an image is. What a source yields, and what a worker resolves again."""

from db.ledger.images import Reference
from db.names.uris import file_path, file_uri

__all__ = ["Reference", "as_folder", "file_path", "file_uri", "path_or_uri", "split_s3"]


def as_folder(uri: str) -> str:
    """What the uris of all files in a folder begin with."""
    return uri if uri.endswith("/") else uri + "/"


def path_or_uri(uri: str) -> str:
    """What a person calls an image: the path of a local file, the uri of any other."""
    return file_path(uri) if uri.startswith("file://") else uri


def split_s3(uri: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`. The key is taken literally: S3 keys may hold `?`, `#` and `%`."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
