"""Whether images can be listed and read from here."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from db.errors import DatabaseError, ImageError, SettingsError, SourceError
from db.names import image_locations
from producer.references import file_path, path_or_uri, split_s3
from producer.sources import references
from producer.storage import sample
from tagonce.doctor.finding import Check, Finding, Status
from tagonce.from_settings import stored
from tagonce.output import ui
from tagonce.settings import Settings
from workers.storage.roots import Roots

NAME = "storage"
ROOTS = "roots"
SECONDS = 12.0
_S3 = "s3://"
_ADVICE = "This machine's user, or its credentials, must be able to read it; a worker on another one may."


def of_sources(sources: Iterable[str], config: Settings) -> Iterator[Check]:
    """One check a source."""
    for source in sources:
        yield Check(NAME, partial(_source, source, config), SECONDS, source)


def of_database(config: Settings) -> Iterator[Finding]:
    """Each bucket and folder of which the database knows images."""
    try:
        with stored(config) as database, database.read() as connection:
            found = image_locations.examples(connection)
    except DatabaseError:
        yield Finding(NAME, Status.SKIPPED, "the database that lists the images cannot be asked, see there")
        return
    if not found:
        yield Finding(NAME, Status.SKIPPED, "the database knows no image yet", "Name a source: tagonce doctor SOURCE")
    for uri in found:
        yield from _listing(uri)
        yield _reading(uri, config)


def look_at_roots(config: Settings) -> Iterator[Finding]:
    """Whether each of TAGONCE_ROOTS is there."""
    if not config.roots:
        yield Finding(ROOTS, Status.SKIPPED, "TAGONCE_ROOTS is not set: workers read whatever the database lists")
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
            words = f"there is nothing at {root}, which TAGONCE_ROOTS names"
            yield Finding(ROOTS, Status.WARNING, words, advice or "Check its spelling, and whether it is mounted.")


def _source(source: str, config: Settings) -> Iterator[Finding]:
    if source == "-":
        raise SettingsError("doctor looks into sources, and a list on standard input can be read only once.")
    with closing(references(source)) as found:  # type: ignore[type-var]  # all are generators, or lists of one
        first = next(found, None)
    if first is None:
        raise SourceError(f"{source} is empty.")
    yield Finding(NAME, Status.OK, f"{source} can be listed")
    yield _reading(first.uri, config)


def _listing(uri: str) -> Iterator[Finding]:
    """Of the bucket of an object. Folders are listed by whoever enqueues, and files are read by their names."""
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
            NAME, Status.FAILED, f"{name}: {error.detail}", "Add it to TAGONCE_ROOTS, if workers may read it."
        )
    except SourceError as error:
        return Finding(NAME, Status.FAILED, f"{name} cannot be read: {error}")
    except FileNotFoundError:
        advice = "Deleted since? Otherwise: is its disk mounted here, under the same path?"
        return Finding(NAME, Status.WARNING, f"{name} is not there", advice)
    except OSError as error:
        return Finding(NAME, Status.FAILED, f"{name} cannot be read: {error.strerror}", _ADVICE)
    return Finding(NAME, Status.OK, f"{name} can be read")
