"""What people call a place, as `--under`, `under:` and `forget` take it: one rule for all of them.

~/Pictures/2024, photos, ../x     a folder of this machine, whether it is there or not; or a file, or the beginning
of names
file:///photos/2024               the same
s3://bucket/2024/                 what keys begin with, to the letter, as S3 has it
"""

import os
import unicodedata
from collections.abc import Iterator

from sqlalchemy import Connection, select

from db.errors import SettingsError, SourceError
from db.names import image_locations
from db.schema import images
from db.sql.score_sql import begins_with
from producer.references import as_folder, file_uri, path_or_uri
from producer.sources.addresses import resolve

_EXAMPLES = 3
_S3 = "s3://"


def uri_prefix(connection: Connection, place: str | None) -> str:
    """What the uri of every image in a place begins with; nothing for no place.

    Names are found in whatever way their accents are encoded (Unicode NFC or NFD).

    Raises:
        SettingsError: nothing is registered there, or it can be no place.
    """
    if place is None:
        return ""
    for prefix in _spellings(place):
        if connection.scalar(select(images.c.id).where(begins_with(prefix)).limit(1)):
            return prefix
    known = [path_or_uri(uri) for uri in image_locations.examples(connection)[:_EXAMPLES]]
    there = f" There is, for example: {', '.join(known)}" if known else ""
    raise SettingsError(f"Nothing is registered under {place!r}, that is {path_or_uri(prefix)}.{there}")


def _spellings(place: str) -> Iterator[str]:
    """Ways in which its uris may begin, the likeliest first. At least one."""
    whole = place.endswith("/")
    for text in dict.fromkeys((place, unicodedata.normalize("NFC", place), unicodedata.normalize("NFD", place))):
        try:
            target = _S3 if text.lower() == _S3 else resolve(os.path.expanduser(text), os.getcwd())  # noqa: PTH109, PTH111
        except SourceError as error:
            raise SettingsError(f"{place!r} is no place: {error}") from error
        if target.startswith(_S3):
            # A bucket has one name, and a key may begin with anything.
            yield target if "/" in target.removeprefix(_S3) or target == _S3 else as_folder(target)
        else:
            uri = file_uri(target)
            yield as_folder(uri)
            if not whole:
                yield uri
