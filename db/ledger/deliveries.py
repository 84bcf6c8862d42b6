"""The number of deliveries of each chunk. It is in the database, so that the death of a worker cannot lose it.

Redis keeps no such number. Without it, a chunk with an image that kills its worker would be delivered again for ever.
"""

from sqlalchemy import Connection, delete, select

from db.schema import deliveries
from db.sql.rows.upsert import insert_into


def count(connection: Connection, chunk_id: str) -> int:
    """Count one more delivery of a chunk. Returns the number of this delivery, from 1."""
    statement = insert_into(connection, deliveries)
    counted = statement.on_conflict_do_update(
        index_elements=["chunk_id"], set_={"deliveries": deliveries.c.deliveries + 1}
    ).returning(deliveries.c.deliveries)
    return int(connection.execute(counted, {"chunk_id": chunk_id, "deliveries": 1}).scalar_one())


def current(connection: Connection, chunk_id: str) -> int:
    """The number of deliveries that no worker finished or handed back; 0 for most chunks."""
    query = select(deliveries.c.deliveries).where(deliveries.c.chunk_id == chunk_id)
    return connection.scalar(query) or 0


def any_counted(connection: Connection) -> bool:
    """Whether a worker holds a chunk, or held one when it died or when the message was lost."""
    return connection.scalar(select(deliveries.c.chunk_id).limit(1)) is not None


def forget_all(connection: Connection) -> None:
    """Delete all counts. For when no chunk of any model is queued or held: the counts are of lost messages."""
    connection.execute(delete(deliveries))


def forget(connection: Connection, chunk_id: str) -> None:
    """Delete the count of a chunk that is done, was split, or was handed back by a worker that is alive."""
    connection.execute(delete(deliveries).where(deliveries.c.chunk_id == chunk_id))
