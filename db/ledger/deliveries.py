"""How often a chunk was handed to a worker, counted where the worker's death cannot lose the count.

Redis keeps no such number, and a chunk with an image that kills its worker would come back for ever.
"""

from sqlalchemy import Connection, delete, select

from db.schema import deliveries
from db.sql.upsert import insert_into


def count(connection: Connection, chunk_id: str) -> int:
    """Count one more delivery of a chunk; returns which one this is, from 1."""
    statement = insert_into(connection, deliveries)
    counted = statement.on_conflict_do_update(
        index_elements=["chunk_id"], set_={"deliveries": deliveries.c.deliveries + 1}
    ).returning(deliveries.c.deliveries)
    return int(connection.execute(counted, {"chunk_id": chunk_id, "deliveries": 1}).scalar_one())


def so_far(connection: Connection, chunk_id: str) -> int:
    """How many deliveries of a chunk have ended without a word; 0 for most."""
    query = select(deliveries.c.deliveries).where(deliveries.c.chunk_id == chunk_id)
    return connection.scalar(query) or 0


def any_counted(connection: Connection) -> bool:
    """Whether a chunk is in work, or was when its worker died, or when its message was lost."""
    return connection.scalar(select(deliveries.c.chunk_id).limit(1)) is not None


def forget_all(connection: Connection) -> None:
    """Nothing is queued or in work, of no model: what is counted belongs to chunks whose messages were lost."""
    connection.execute(delete(deliveries))


def forget(connection: Connection, chunk_id: str) -> None:
    """The chunk is done, was split, or was handed back by a worker that is alive."""
    connection.execute(delete(deliveries).where(deliveries.c.chunk_id == chunk_id))
