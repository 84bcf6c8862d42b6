"""What a person may write to point at something: a path, or an address of one of the schemes we read."""

import os
import posixpath
import re

from db.errors import SourceError
from db.names.uris import file_path
from producer.uris import split_s3

SUPPORTED = "s3://bucket/key, file:///path and paths"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")  # what botocore accepts, access point aliases included


def resolve(text: str, base: str) -> str:
    """An absolute path or an `s3://` URI. Nothing is looked up.

    Args:
        text: `s3://bucket/key`, `file:///absolute/path`, or a path.
        base: the absolute path of the folder that a relative path starts from, or an `s3://` folder with a slash at
            its end.

    Raises SourceError when it can be neither, or holds what no database column and no file name can.
    """
    if "\0" in text:
        raise SourceError("a reference holds a NUL byte. Is this a list by `find -print0`? Then say --null.")
    scheme = _SCHEME.match(text)
    if not text:
        raise SourceError("a reference is empty.")
    rest = text[scheme.end() :] if scheme else text
    match scheme and scheme[1].lower():
        case None:
            path = text
        case "s3":
            return _s3(f"s3://{rest}")
        case "file":
            path = _local(rest)
        case other:
            raise SourceError(f"{text!r}: {other}:// is not supported; supported are {SUPPORTED}.")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise SourceError(f"{text!r} cannot be the name of a file: {error.reason}.") from error
    if base.startswith("s3://") and not path.startswith("/"):
        bucket, folder = split_s3(base)
        return _s3(f"s3://{bucket}/{posixpath.normpath(posixpath.join('/', folder, path)).lstrip('/')}")
    return os.path.abspath(os.path.join(base, path))  # noqa: PTH100, PTH118 -- Path keeps `..`


def _local(rest: str) -> str:
    """The path of a file URI, whose host RFC 8089 lets be empty or `localhost`."""
    path = file_path(rest.removeprefix("localhost"))
    if not path.startswith("/"):
        raise SourceError(f"'file://{rest}' names another machine; write file:///path.")
    if "\0" in path:
        raise SourceError(f"'file://{rest}' holds a NUL byte, which no file name can.")
    return path


def _s3(uri: str) -> str:
    bucket, _ = split_s3(uri)
    if not _BUCKET.fullmatch(bucket):
        raise SourceError(f"{uri!r}: {bucket!r} is not the name of a bucket; write s3://bucket/key.")
    if not uri.isascii():
        try:
            uri.encode()
        except UnicodeEncodeError as error:
            raise SourceError(f"{uri!r}: keys in S3 are UTF-8, and this is not.") from error
    return uri
