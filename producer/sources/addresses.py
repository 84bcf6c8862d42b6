"""Parses an address that a person wrote: a path, a `file://` URI or an `s3://` URI."""

import os
import posixpath
import re

from db.errors import SourceError
from db.names.uris import file_path
from producer.uris import split_s3

SUPPORTED = "s3://bucket/key, file:///path and paths"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")  # as botocore accepts it, aliases of access points included


def resolve(text: str, base: str) -> str:
    """The address as an absolute path or an `s3://` URI. Accesses no storage.

    Args:
        text: `s3://bucket/key`, `file:///absolute/path`, or a path.
        base: the folder of relative paths: an absolute path, or an `s3://` URI with a slash at its end.

    Raises:
        SourceError: the text is neither, or has characters that no database column or no file name can hold.
    """
    if "\0" in text:
        raise SourceError("a reference contains a NUL byte. If this is a list by `find -print0`, add --null.")
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
        raise SourceError(f"{text!r} is not a possible file name: {error.reason}.") from error
    if base.startswith("s3://") and not path.startswith("/"):
        bucket, folder = split_s3(base)
        return _s3(f"s3://{bucket}/{posixpath.normpath(posixpath.join('/', folder, path)).lstrip('/')}")
    return os.path.abspath(os.path.join(base, path))  # noqa: PTH100, PTH118 -- Path keeps `..`


def _local(rest: str) -> str:
    """The path of a file URI without its scheme. Its host may be empty or `localhost` (RFC 8089)."""
    path = file_path(rest.removeprefix("localhost"))
    if not path.startswith("/"):
        raise SourceError(f"'file://{rest}' names another machine; write file:///path.")
    if "\0" in path:
        raise SourceError(f"'file://{rest}' contains a NUL byte, which no file name may.")
    return path


def _s3(uri: str) -> str:
    bucket, _ = split_s3(uri)
    if not _BUCKET.fullmatch(bucket):
        raise SourceError(f"{uri!r}: {bucket!r} is not a valid bucket name; write s3://bucket/key.")
    if not uri.isascii():
        try:
            uri.encode()
        except UnicodeEncodeError as error:
            raise SourceError(f"{uri!r} is not valid UTF-8, and keys in S3 must be.") from error
    return uri
