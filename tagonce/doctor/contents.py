"""Contents of the database, compared with the settings and the files."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import Connection

from db.errors import DatabaseError, SettingsError, SourceError
from db.ledger import models
from db.names import image_locations
from db.names.uris import file_path
from db.policy import profiles
from db.sampling import row_size
from db.scores import to_probability
from producer.storage import sample
from producer.uris import split_s3
from tagonce.doctor.finding import Finding, Status
from tagonce.from_settings import stored
from tagonce.output import row_sizes, ui
from tagonce.settings import Settings

IMAGES = "images"
PROFILES = "profiles"
ROWS = "rows"
SAMPLE = 200
"""Number of images to look up."""
_THREADS = 16
_FILE = "file://"


def look_at_images(config: Settings) -> Iterator[Finding]:
    """Check whether registered files and objects still exist."""
    try:
        with stored(config) as database, database.read() as connection:
            uris = image_locations.spread(connection, SAMPLE)
    except DatabaseError:
        yield Finding(IMAGES, Status.SKIPPED, "the database cannot be read; see the check `database`")
        return
    for kind, chosen in (
        ("files", [uri for uri in uris if uri.startswith(_FILE)]),
        ("objects", [uri for uri in uris if not uri.startswith(_FILE)]),
    ):
        if chosen:
            yield _gone(kind, chosen)
    if not uris:
        yield Finding(IMAGES, Status.SKIPPED, "no image is registered yet")


def _gone(kind: str, uris: list[str]) -> Finding:
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="doctor") as pool:
        there = list(pool.map(_is_there, uris))
    gone = [uri for uri, is_there in zip(uris, there, strict=True) if not is_there]
    if not gone:
        return Finding(IMAGES, Status.OK, f"all {len(uris):,} {kind} of a sample exist")
    example = file_path(gone[0]) if gone[0].startswith(_FILE) else gone[0]
    advice = "Moved or deleted? Searches and exports still include them."
    if len(gone) == len(uris):
        advice = "Is the disk mounted here, under the same path? Only hosts that read images need it."
    return Finding(
        IMAGES,
        Status.WARNING,
        f"{len(gone):,} of {len(uris):,} {kind} of a sample do not exist: {ui.printable(example)}, for example",
        advice,
    )


def _is_there(uri: str) -> bool:
    """Whether an image exists. Errors count as yes; the check of the storage reports them."""
    if uri.startswith(_FILE):
        try:
            return Path(file_path(uri)).exists()
        except OSError:
            return True
    try:
        return sample.is_there(*split_s3(uri))
    except (SourceError, SettingsError):
        return True


def look_at_rows(config: Settings) -> Iterator[Finding]:
    """Measure the stored scores of each model: what its floor costs."""
    try:
        with stored(config) as database, database.read() as connection:
            sizes = [(model, row_size(connection, model)) for model in models.every(connection)]
    except DatabaseError:
        yield Finding(ROWS, Status.SKIPPED, "the database cannot be read; see the check `database`")
        return
    for model, size in sizes:
        if size:
            yield Finding(ROWS, Status.OK, f"{model.label}: {row_sizes.in_words(size)}", row_sizes.warning(model, size))
    if not any(size for _, size in sizes):
        yield Finding(ROWS, Status.SKIPPED, "no image is tagged yet")


def look_at_profiles(config: Settings) -> Iterator[Finding]:
    """Check whether saved thresholds are below the floor of the settings."""
    try:
        with stored(config) as database, database.read() as connection:
            yield from _below(connection, config)
    except DatabaseError:
        yield Finding(PROFILES, Status.SKIPPED, "the database cannot be read; see the check `database`")


def _below(connection: Connection, config: Settings) -> Iterator[Finding]:
    lowest = profiles.lowest(connection)
    below = [(label, score) for label, score in lowest if score < config.floor_score]
    for label, score in below:
        yield Finding(
            PROFILES,
            Status.WARNING,
            f"{label} has a threshold of {to_probability(score):g}, and TAGONCE_FLOOR is {config.floor:g}",
            "A worker with this floor stores nothing below it, so the profile cannot be applied to its scores: lower "
            "the floor, or save the profile with higher thresholds.",
        )
    if not below:
        words = f"{len(lowest):,} saved, none below the floor of {config.floor:g}" if lowest else "none is saved"
        yield Finding(PROFILES, Status.OK, words)
