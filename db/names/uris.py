"""Convert a local path to its uri, and back."""

import os
import urllib.parse


def file_uri(path: str) -> str:
    """The `file://` URI of an absolute path. Percent-encoding keeps names that are no valid UTF-8."""
    return "file://" + urllib.parse.quote_from_bytes(os.fsencode(path))


def file_path(uri: str) -> str:
    """The path of a `file://` URI, with undecodable bytes as Python's surrogate escapes."""
    return os.fsdecode(urllib.parse.unquote_to_bytes(uri.removeprefix("file://")))
