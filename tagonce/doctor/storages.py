"""Access to images from this machine."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from db.errors import DatabaseError, ImageError, SettingsError, SourceError
from db.names import image_locations
from db.names.uris import file_path
from producer.sources import references
from producer.storage import sample
from producer.uris import path_or_uri, split_s3
from tagonce.doctor.finding import Check, Finding, Status
from tagonce.from_settings import stored
from tagonce.output import ui
from tagonce.settings import Settings
from workers.storage.roots import Roots

NAME = "storage"
ROOTS = "roots"
SECONDS = 12.0
_S3 = "s3://"
_ADVICE = "The user or the credentials of this machine cannot read it. Workers on other machines may."


def of_sources(sources: Iterable[str], config: Settings) -> Iterator[Check]:
    """One check per source."""
    for source in sources:
        yield Check(NAME, partial(_source, source, config), SECONDS, source)


def of_database(config: Settings) -> Iterator[Finding]:
    """Check one image of each registered bucket and folder."""
    try:
        with stored(config) as database, database.read() as connection:
            found = image_locations.examples(connection)
    except DatabaseError:
        yield Finding(NAME, Status.SKIPPED, "the database cannot be read; see the check `database`")
        return
    if not found:
        yield Finding(NAME, Status.SKIPPED, "no image is registered yet", "Give a source: tagonce doctor SOURCE")
    for uri in found:
        yield from _listing(uri)
        yield _reading(uri, config)


def look_at_roots(config: Settings) -> Iterator[Finding]:
    """Check that each of TAGONCE_ROOTS exists."""
    if not config.roots:
        yield Finding(ROOTS, Status.SKIPPED, "TAGONCE_ROOTS is not set: workers read all registered images")
        return
    Roots(config.roots)
    for root in config.roots:
        advice = ""
        try:
            if root.startswith(_S3):
                there = sample.is_there(*split_s3(root))
            else:
                there = Path(file_path(root) if root.startswith("file://") else root).is_dir()
        except (SourceError, SettingsError) as error:
            there, advice = False, str(error)
        if there:
            yield Finding(ROOTS, Status.OK, root)
        else:
            words = f"{root} of TAGONCE_ROOTS does not exist"
            yield Finding(ROOTS, Status.WARNING, words, advice or "Check the spelling, and whether it is mounted.")


def _source(source: str, config: Settings) -> Iterator[Finding]:
    if source == "-":
        raise SettingsError("tagonce doctor cannot check standard input. Give a file, a folder or an s3:// prefix.")
    with closing(references(source)) as found:  # type: ignore[type-var]  # all are generators, or lists of one
        first = next(found, None)
    if first is None:
        raise SourceError(f"{source} is empty.")
    yield Finding(NAME, Status.OK, f"{source} can be listed")
    yield _reading(first.uri, config)


def _listing(uri: str) -> Iterator[Finding]:
    """Check that the bucket of an object can be listed. Folders are only listed by producers."""
    if not uri.startswith(_S3):
        return
    bucket, _key = split_s3(uri)
    try:
        sample.is_there(bucket, "")
    except (SourceError, SettingsError) as error:
        yield Finding(NAME, Status.FAILED, str(error))
    else:
        yield Finding(NAME, Status.OK, f"{_S3}{bucket} can be listed")


def _reading(uri: str, config: Settings) -> Finding:
    name = ui.printable(path_or_uri(uri))
    try:
        roots = Roots(config.roots or ())
        roots.check_object(uri) if uri.startswith(_S3) else roots.check_path(file_path(uri))
        sample.read_some(uri)
    except ImageError as error:
        return Finding(
            NAME, Status.FAILED, f"{name}: {error.detail}", "If workers may read it, add it to TAGONCE_ROOTS."
        )
    except SourceError as error:
        return Finding(NAME, Status.FAILED, f"{name} cannot be read: {error}")
    except FileNotFoundError:
        advice = "Was it deleted? Otherwise, is its disk mounted here, under the same path?"
        return Finding(NAME, Status.WARNING, f"{name} does not exist", advice)
    except OSError as error:
        return Finding(NAME, Status.FAILED, f"{name} cannot be read: {error.strerror}", _ADVICE)
    return Finding(NAME, Status.OK, f"{name} can be read")
