"""Registers thousands of references in one statement, as arrays on PostgreSQL and as JSON on SQLite.

The statements are the drivers' own, not SQLAlchemy's: one parameter per reference took longer to make and to parse than
the rows took to write. Arrays of text are transferred four times as fast in binary (`%b`).
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import Connection

from db.sql.formats.sqlite_time import sqlite_time


class NewImage(NamedTuple):
    """The columns that registration writes to `images`."""

    uri: str
    version: str
    """`stored_version` of the reference's version."""
    bytes: int | None


Known: TypeAlias = tuple[int, int | None, bool | None, bool, bool]
"""The state of a reference in the database

    position    of the reference in the list
    id          of the image with its uri; None if there is none
    changed     whether the image has another version
    pending     whether the version of the reference has neither a prediction nor a failure
    gone        whether the image is marked as gone
"""


# Two look-ups by lists of keys: a join of the references with the tables is read by PostgreSQL as a scan of all images
# until it has some statistics, and Citus joins no function with a distributed table.
_IMAGES_POSTGRESQL = "select uri, id, version from images where uri = any(%(uris)b::text[])"
_RESULTS_POSTGRESQL = """
    select image_id, image_version from predictions where model_id = %(model_id)s and image_id = any(%(ids)s::bigint[])
    union all
    select image_id, image_version from failures where model_id = %(model_id)s and image_id = any(%(ids)s::bigint[])
    union all
    select image_id, null from gone where image_id = any(%(ids)s::bigint[])
"""
_UNFINISHED_SQLITE = """
    with found as materialized (
        select key as position, json_extract(value, '$[0]') as uri, json_extract(value, '$[1]') as version
        from json_each(:rows)
    ), known as (
        select found.position, found.version, i.id, i.version <> found.version as changed,
            exists (select 1 from predictions p
                where p.model_id = :model_id and p.image_id = i.id and p.image_version = found.version)
            or exists (select 1 from failures f
                where f.model_id = :model_id and f.image_id = i.id and f.image_version = found.version) as finished,
            exists (select 1 from gone g where g.image_id = i.id) as gone
        from found left join images i on i.uri = found.uri
    )
    select position, id, changed, not finished, gone from known
    where (:every or id is null or changed or not finished or gone) and not (gone and version = '')
"""

_WRITE = """
    insert into images (uri, version, bytes, added_at) {rows}
    on conflict (uri) do update set version = excluded.version, bytes = excluded.bytes
    where images.version <> excluded.version
    returning uri, id
"""
_WRITE_POSTGRESQL = _WRITE.format(
    rows="""
    select uri, version, bytes, %(now)s
    from unnest(%(uris)b::text[], %(versions)b::text[], %(sizes)b::bigint[])
        with ordinality as found (uri, version, bytes, position)
    order by position
    """,
)
_WRITE_SQLITE = _WRITE.format(
    rows="""
    select json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), :now
    from json_each(:rows)
    where true
    order by key
    """,
)


def unfinished(
    connection: Connection, rows: Sequence[NewImage], model_id: int, *, every: bool = False
) -> Sequence[Known]:
    """The rows that are new, changed, pending for the model, or marked as gone, in any order.

    A row without a version, whose file does not exist, is left out if it is already marked as gone.

    Args:
        every: include all other rows as well.
    """
    if connection.dialect.name == "postgresql":
        return _unfinished_postgresql(connection, rows, model_id, every=every)
    parameters = _parameters(connection, rows) | {"model_id": model_id, "every": every}
    return connection.exec_driver_sql(_UNFINISHED_SQLITE, parameters).all()


def _unfinished_postgresql(
    connection: Connection, rows: Sequence[NewImage], model_id: int, *, every: bool
) -> list[Known]:
    found = _fetched(connection, _IMAGES_POSTGRESQL, {"uris": [row.uri for row in rows]})
    stored = {uri: (row_id, version) for uri, row_id, version in found}
    # Images with the version of a result; those with None are gone.
    finished: set[tuple[int, str | None]] = set()
    if stored:
        # PostgreSQL's text of an array: psycopg would write it element by element.
        ids = "{" + ",".join([str(row_id) for _uri, row_id, _version in found]) + "}"
        finished.update(_fetched(connection, _RESULTS_POSTGRESQL, {"model_id": model_id, "ids": ids}))
    known: list[Known] = []
    for position, (uri, wanted, _bytes) in enumerate(rows):
        if uri not in stored:
            known.append((position, None, None, True, False))
            continue
        row_id, version = stored[uri]
        changed, pending, gone = version != wanted, (row_id, wanted) not in finished, (row_id, None) in finished
        if (every or changed or pending or gone) and not (gone and not wanted):
            known.append((position, row_id, changed, pending, gone))
    return known


def _fetched(connection: Connection, query: str, parameters: dict[str, Any]) -> Any:
    """All rows as the driver's tuples, which take half the time of SQLAlchemy's."""
    result = connection.exec_driver_sql(query, parameters)
    cursor: Any = result.cursor
    return cursor.fetchall()


def write(connection: Connection, rows: Sequence[NewImage]) -> dict[str, int]:
    """Insert rows, or update their version, one after the other in the order of `rows`.

    Returns:
        Ids by uri. Rows that another producer has meanwhile written in the same version are missing.
    """
    now = datetime.now(UTC)
    parameters = _parameters(connection, rows)
    if connection.dialect.name == "postgresql":
        written = connection.exec_driver_sql(_WRITE_POSTGRESQL, parameters | {"now": now})
    else:
        written = connection.exec_driver_sql(_WRITE_SQLITE, parameters | {"now": sqlite_time(now)})
    return dict(written.all())


def _parameters(connection: Connection, rows: Sequence[NewImage]) -> dict[str, Any]:
    if connection.dialect.name == "postgresql":
        uris, versions, sizes = map(list, zip(*rows, strict=True))
        return {"uris": uris, "versions": versions, "sizes": sizes}
    return {"rows": json.dumps(rows)}
