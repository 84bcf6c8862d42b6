"""Marks of images that are gone: registered images that no longer exist at their uri.

Their predictions and labels stay stored. `db.sql.gone_scope` decides which queries include them.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, func, insert, literal, not_, select

from db.schema import UtcDateTime, gone, images
from db.sql.gone_scope import is_gone
from db.sql.in_list import in_list


def mark(connection: Connection, image_ids: Sequence[int]) -> int:
    """Mark images as gone. Returns the number of new marks. An image that was deleted meanwhile is skipped."""
    found = select(images.c.id, literal(datetime.now(UTC), UtcDateTime)).where(
        in_list(connection, images.c.id, image_ids), not_(is_gone(images.c.id))
    )
    marked = insert(gone).from_select(["image_id", "gone_at"], found).returning(gone.c.image_id)
    return len(connection.execute(marked).all())


def unmark(connection: Connection, image_ids: Sequence[int]) -> None:
    """Remove the marks of images that were seen again."""
    connection.execute(delete(gone).where(in_list(connection, gone.c.image_id, image_ids)))


def count(connection: Connection) -> int:
    """The number of marked images."""
    return connection.scalar(select(func.count()).select_from(gone)) or 0
