"""Places, as `--under`, `under:` and `forget` accept them.

~/Pictures/2024, photos, ../x   a folder of this machine, existing or not; or a file, or a prefix of file names
file:///photos/2024             the same
s3://bucket/2024/               a prefix of keys, taken literally
"""

import os
import unicodedata
from collections.abc import Iterator

from sqlalchemy import Connection, select

from db.errors import SettingsError, SourceError
from db.names import image_locations
from db.names.uris import file_uri
from db.schema import images
from db.sql.scores.score_sql import begins_with
from producer.sources.addresses import resolve
from producer.uris import as_folder, path_or_uri

_EXAMPLES = 3
_S3 = "s3://"


def uri_prefix(connection: Connection, place: str | None) -> str:
    """The common prefix of the uris of all images in a place; empty for None.

    Both Unicode normal forms (NFC and NFD) of the name are tried.

    Raises:
        SettingsError: no image is registered there, or the name is invalid.
    """
    if place is None:
        return ""
    for prefix in _spellings(place):
        if connection.scalar(select(images.c.id).where(begins_with(prefix)).limit(1)):
            return prefix
    known = [path_or_uri(uri) for uri in image_locations.examples(connection)[:_EXAMPLES]]
    there = f" Registered, for example: {', '.join(known)}" if known else ""
    raise SettingsError(f"No image is registered under {place!r} ({path_or_uri(prefix)}).{there}")


def _spellings(place: str) -> Iterator[str]:
    """Possible prefixes of its uris, the likeliest first. At least one."""
    whole = place.endswith("/")
    for text in dict.fromkeys((place, unicodedata.normalize("NFC", place), unicodedata.normalize("NFD", place))):
        try:
            target = _S3 if text.lower() == _S3 else resolve(os.path.expanduser(text), os.getcwd())  # noqa: PTH109, PTH111
        except SourceError as error:
            raise SettingsError(f"{place!r} is not a folder, file or s3:// prefix: {error}") from error
        if target.startswith(_S3):
            # A bucket is named completely; a key may be a prefix.
            yield target if "/" in target.removeprefix(_S3) or target == _S3 else as_folder(target)
        else:
            uri = file_uri(target)
            yield as_folder(uri)
            if not whole:
                yield uri
