"""Marks images as gone that a complete listing lacks, after the storage confirms that they are missing."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import func, not_, select

from db.arrays.batches import batched
from db.arrays.id_set import IdSet
from db.database import Database
from db.ledger import gone, moved_labels
from db.names.uris import file_path
from db.schema import images
from db.sql.gone_scope import is_gone
from db.sql.scores.score_sql import begins_with

AT_ONCE = 10_000
"""Images in one transaction, or read at once."""
THREADS = 32
"""Concurrent HEAD requests to S3."""


@dataclass(frozen=True, slots=True)
class Marked:
    """Result for one place."""

    place: str
    """URI prefix."""
    registered: int
    """Images below it that were not marked before."""
    gone: int
    """Those of them that no longer exist. If `refused`, at least so many."""
    refused: bool
    """More than half are gone, so none was marked: the listing is more likely wrong than the storage empty."""


def newest(database: Database) -> int:
    """Id of the last registered image. Images with larger ids were registered while a source was listed."""
    with database.read() as connection:
        return connection.scalar(select(func.max(images.c.id))) or 0


def mark(
    database: Database,
    place: str,
    seen: IdSet,
    *,
    last: int,
    even_most: bool = False,
    on_progress: Callable[[int], object] = lambda _images: None,
) -> Marked:
    """Mark the images of a place that its listing lacked and that the storage does not have either.

    The storage is asked because a listing omits what it may not read and what another option excludes. Memory: one bit
    an image. Labels of a marked image move to an image of the same content.

    Args:
        place: URI prefix of its images.
        seen: ids of the images that a complete listing yielded.
        last: see `newest`. Later images may have been registered by others after that listing.
        even_most: mark them even if they are more than half of the images of the place.
        on_progress: called with the number of images checked since the last call.

    Raises:
        SourceError: the storage refuses or does not answer.
    """
    here = (begins_with(place), not_(is_gone(images.c.id)))
    with database.read() as connection:
        registered = connection.scalar(select(func.count()).select_from(images).where(*here)) or 0
    missing_ids = IdSet()
    found = 0
    for rows in _walk(database, place, last):
        missing = seen.without([row_id for row_id, _uri in rows])
        ids = _confirmed_missing([row for row in rows if row[0] in missing])
        missing_ids.add(ids)
        found += len(ids)
        on_progress(len(rows))
        if found > registered / 2 and not even_most:
            return Marked(place, registered, found, refused=True)
    for ids in batched(missing_ids, AT_ONCE):
        with database.write() as connection:
            gone.mark(connection, ids)
    with database.write() as connection:
        moved_labels.move_labels(connection)
    return Marked(place, registered, found, refused=False)


def _walk(database: Database, place: str, last: int) -> Iterator[list[tuple[int, str]]]:
    """(id, uri) of the images of a place that are not marked, ordered by uri, `AT_ONCE` in a list."""
    after = ""
    while True:
        query = (
            select(images.c.id, images.c.uri)
            .where(begins_with(place), images.c.uri > after, images.c.id <= last, not_(is_gone(images.c.id)))
            .order_by(images.c.uri)
            .limit(AT_ONCE)
        )
        with database.read() as connection:
            rows = [(row.id, row.uri) for row in connection.execute(query)]
        if not rows:
            return
        yield rows
        after = rows[-1][1]


def _confirmed_missing(rows: Sequence[tuple[int, str]]) -> list[int]:
    """Ids of the images that the storage does not have. One that we may not read counts as existing."""
    local = [row_id for row_id, uri in rows if uri.startswith("file://") and _no_file(file_path(uri))]
    remote = [(row_id, uri) for row_id, uri in rows if uri.startswith("s3://")]
    return local + (_no_objects(remote) if remote else [])


def _no_file(path: str) -> bool:
    try:
        os.stat(path)  # noqa: PTH116 -- paths are strings here: Path is slow by the million
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _no_objects(rows: Sequence[tuple[int, str]]) -> list[int]:
    from producer.sources.s3 import is_missing  # boto3 is slow to import
    from producer.storage.s3_client import s3_client

    client = s3_client(max_pool_connections=THREADS)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="head") as pool:
        answers = pool.map(lambda row: is_missing(client, row[1]), rows)
        return [row_id for (row_id, _uri), missing in zip(rows, answers, strict=True) if missing]
