"""Advisory locks of images and of names on PostgreSQL. SQLite has one writer at a time and needs none.

They are released at the end of the transaction, after its rows are visible. No statement locks many rows: Citus has no
`FOR UPDATE` over rows of several nodes.
"""

from collections.abc import Iterable

from sqlalchemy import Connection, text

_IMAGES = 0x7A6
"""The first of the two numbers of these locks. Locks of one number, `lock_name`, are others."""
_BLOCK = 256
"""Ids with one lock: about a chunk, so that a chunk of neighbours takes two locks. Chunks of scattered ids wait for
each other: a lock for each id would need more memory than PostgreSQL has for locks."""
_LOCKS = 1_024
"""Blocks share this many locks. PostgreSQL has memory for 64 locks per connection that it allows, 6,400 by default."""


def lock_images(connection: Connection, ids: Iterable[int]) -> None:
    """Wait for all other transactions that hold locks of these images, then hold the locks until the end of this one.

    A transaction calls this once at most, before it reads what it depends on: each statement sees what was committed
    before it, so the next one sees what the others wrote. All transactions take the locks in the same order, so there
    is no deadlock.
    """
    blocks = {image_id // _BLOCK % _LOCKS for image_id in ids}
    if connection.dialect.name != "postgresql" or not blocks:
        return
    # Even ones first. In ascending order, a row of neighbouring chunks, which share one lock each, would be written one
    # after the other.
    order = sorted(blocks, key=lambda block: (block % 2, block))
    statement = "select pg_advisory_xact_lock(%(images)s, block) from unnest(%(blocks)b::integer[]) as block"
    connection.exec_driver_sql(statement, {"images": _IMAGES, "blocks": order})


def try_lock_name(connection: Connection, number: int) -> bool:
    """Take the lock of a number until the end of the transaction, unless another transaction has it.

    Returns:
        Whether this transaction has it; True on SQLite.
    """
    query = text("select pg_try_advisory_xact_lock(:number)")
    return connection.dialect.name != "postgresql" or bool(connection.scalar(query, {"number": number}))


def lock_name(connection: Connection, number: int) -> None:
    """Wait for the lock of a number, and hold it until the end of the transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("select pg_advisory_xact_lock(:number)"), {"number": number})
