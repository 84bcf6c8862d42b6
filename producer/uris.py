"""URIs of images: bucket and key of `s3://`, prefixes of folders, and the names shown to people.

`db.names.uris` converts between paths and `file://`.
"""

from db.names.uris import file_path


def as_folder(uri: str) -> str:
    """URI prefix of all files in a folder: the URI with a slash at its end."""
    return uri if uri.endswith("/") else uri + "/"


def path_or_uri(uri: str) -> str:
    """Name of an image for people: the path of a local file, the URI of any other."""
    return file_path(uri) if uri.startswith("file://") else uri


def split_s3(uri: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`. The key is taken literally: S3 keys may hold `?`, `#` and `%`."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
