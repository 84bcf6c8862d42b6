"""A chunk of results as PostgreSQL likes it: in one statement for all rows, for which SQLAlchemy has no words."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from db.schema import Int16Array

Facts = tuple[int, int, int, int, str, bytes]
"""Image id, bytes, width, height, format, sha256."""

PackedRow = tuple[int, int, str, datetime, Int16Array, Int16Array]
"""Model id, image id, image version, time, tag ids, scores."""

_UPDATE_FACTS = text(
    """
    update images i
    set bytes = f.bytes, width = f.width, height = f.height, format = f.format, sha256 = decode(f.sha256, 'hex')
    from json_to_recordset(cast(:facts as json))
        as f(id bigint, bytes bigint, width integer, height integer, format text, sha256 text)
    where i.id = f.id and i.sha256 is distinct from decode(f.sha256, 'hex')
    """
)
_COPY_PREDICTIONS = (
    "copy predictions (model_id, image_id, image_version, predicted_at, tag_ids, scores) from stdin (format binary)"
)
_TYPES = ("int8", "int8", "text", "timestamptz", "int2[]", "int2[]")


def update_facts(connection: Connection, facts: Sequence[Facts]) -> None:
    """Write what is known of these files, where it is new. The caller holds the locks of the rows."""
    # As JSON, one parameter: psycopg writes arrays element by element in Python, which took as long as the update.
    names = ("id", "bytes", "width", "height", "format")
    rows = [dict(zip(names, one[:-1], strict=True), sha256=one[-1].hex()) for one in facts]
    connection.execute(_UPDATE_FACTS, {"facts": json.dumps(rows)})


def copy_predictions(connection: Connection, rows: Iterable[PackedRow]) -> None:
    """Insert rows of `predictions`, none of which may be there."""
    driver = connection.connection.driver_connection
    with (
        errors_as_sqlalchemys(connection, _COPY_PREDICTIONS),
        driver.cursor() as cursor,  # type: ignore[union-attr]  # None only of a closed connection
        cursor.copy(_COPY_PREDICTIONS) as copy,
    ):
        copy.set_types(_TYPES)
        for row in rows:
            copy.write_row(row)


@contextmanager
def errors_as_sqlalchemys(connection: Connection, statement: str) -> Iterator[None]:
    """What the driver raises becomes what SQLAlchemy raises, so that `db.database` knows what will pass."""
    dbapi = connection.dialect.loaded_dbapi
    try:
        yield
    except dbapi.Error as error:
        raise DBAPIError.instance(statement, None, error, dbapi.Error, dialect=connection.dialect) from error
