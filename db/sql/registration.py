"""Thousands of references in one statement: as arrays to PostgreSQL, as JSON to SQLite, which has none.

Statements of the drivers and not of SQLAlchemy: a parameter a reference took longer to make and to parse than the rows
took to write, and arrays of text travel in binary (`%b`) four times as fast.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import Connection


class NewImage(NamedTuple):
    """What registering writes to `images`."""

    uri: str
    version: str
    """As it is stored."""
    bytes: int | None


Known: TypeAlias = tuple[int, int | None, bool | None, bool, bool]
"""A row: its position, and of what `images` holds under its uri

    id          None when that is nothing
    changed     whether it is of another version
    pending     whether this version has neither a prediction nor a failure
    gone        whether it is marked as gone
"""


# `limit` makes the planner look into the index once a reference. Left to itself it reads the whole table for every
# batch, until that holds some millions.
_OPEN_POSTGRESQL = """
    select found.position - 1, known.id, known.version <> found.version, known.finished is not true,
        known.gone is true
    from unnest(%(uris)b::text[], %(versions)b::text[]) with ordinality as found (uri, version, position)
    left join lateral (
        select i.id, i.version,
            exists (select 1 from predictions p
                where p.model_id = %(model_id)s and p.image_id = i.id and p.image_version = found.version)
            or exists (select 1 from failures f
                where f.model_id = %(model_id)s and f.image_id = i.id and f.image_version = found.version) as finished,
            exists (select 1 from gone g where g.image_id = i.id) as gone
        from images i where i.uri = found.uri limit 1
    ) as known on true
    where (%(every)s or known.id is null or known.version <> found.version or not known.finished or known.gone)
        and not (known.gone is true and found.version = '')
"""
_OPEN_SQLITE = """
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
    on conflict (uri) do update set version = excluded.version, bytes = excluded.bytes, {forgotten}
    where images.version <> excluded.version
    returning uri, id
"""
_FORGOTTEN = "width = null, height = null, format = null, sha256 = null"
"""What was known of the file that is no longer there."""
_WRITE_POSTGRESQL = _WRITE.format(
    rows="""
    select uri, version, bytes, %(now)s
    from unnest(%(uris)b::text[], %(versions)b::text[], %(sizes)b::bigint[])
        with ordinality as found (uri, version, bytes, position)
    order by position
    """,
    forgotten=_FORGOTTEN,
)
_WRITE_SQLITE = _WRITE.format(
    rows="""
    select json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), :now
    from json_each(:rows)
    where true
    order by key
    """,
    forgotten=_FORGOTTEN,
)


def unfinished(
    connection: Connection, rows: Sequence[NewImage], model_id: int, *, every: bool = False
) -> Sequence[Known]:
    """Those of the rows that are new, changed, pending for the model, or marked as gone, in any order.

    A file that is gone and was looked for in vain, so that it has no version, is passed over.

    Args:
        every: those as well about which there is nothing to do.
    """
    query = _OPEN_POSTGRESQL if connection.dialect.name == "postgresql" else _OPEN_SQLITE
    parameters = _parameters(connection, rows) | {"model_id": model_id, "every": every}
    return connection.exec_driver_sql(query, parameters).all()


def write(connection: Connection, rows: Sequence[NewImage]) -> dict[str, int]:
    """Insert rows, or bring their version up to date, one after the other in the order given.

    Returns ids by uri, of all but those that somebody else wrote in the same version since we looked.
    """
    now = datetime.now(UTC)
    parameters = _parameters(connection, rows)
    if connection.dialect.name == "postgresql":
        written = connection.exec_driver_sql(_WRITE_POSTGRESQL, parameters | {"now": now})
    else:
        # As `db.schema.UtcDateTime` writes it.
        stored = now.replace(tzinfo=None).isoformat(" ", timespec="microseconds")
        written = connection.exec_driver_sql(_WRITE_SQLITE, parameters | {"now": stored})
    return dict(written.all())


def _parameters(connection: Connection, rows: Sequence[NewImage]) -> dict[str, Any]:
    if connection.dialect.name == "postgresql":
        uris, versions, sizes = map(list, zip(*rows, strict=True))
        return {"uris": uris, "versions": versions, "sizes": sizes}
    return {"rows": json.dumps(rows)}
