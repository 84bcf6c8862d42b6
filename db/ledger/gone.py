"""Images that are gone: registered, and no longer where they were. They keep what is stored of them.

Whether a query sees them is decided here alone: by what its transaction was opened for (`Database.read(gone=...)`).
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    not_,
    select,
    true,
)

from db.ledger.models import Model
from db.ledger.scope import Gone
from db.schema import UtcDateTime, gone, images, predictions
from db.sql.in_list import in_list

OPTION = "tagonce_gone"
"""The execution option of a connection that holds its `Gone`."""


_marked = gone.alias("marked")
"""A name of its own, for queries that ask for the marks themselves."""


def is_gone(image_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Whether an image is marked."""
    return exists().where(_marked.c.image_id == image_id)


def scope_of(connection: Connection) -> Gone:
    """What the transaction was opened for."""
    return Gone(connection.get_execution_options().get(OPTION, Gone.EXCLUDE))


def in_scope(connection: Connection, image_id: Column[int]) -> ColumnElement[bool]:
    """Which images the transaction is about: by default those that are not gone."""
    match scope_of(connection):
        case Gone.INCLUDE:
            return true()
        case Gone.ONLY:
            return is_gone(image_id)
        case _:
            return not_(is_gone(image_id))


def tagged(connection: Connection, model: Model) -> ColumnElement[bool]:
    """The rows of `predictions` of a model, of the images that the transaction is about."""
    return and_(predictions.c.model_id == model.id, in_scope(connection, predictions.c.image_id))


def mark(connection: Connection, image_ids: Sequence[int]) -> int:
    """Mark images as gone; returns how many were not. One that was deleted meanwhile is passed over."""
    found = select(images.c.id, literal(datetime.now(UTC), UtcDateTime)).where(
        in_list(connection, images.c.id, image_ids), not_(is_gone(images.c.id))
    )
    marked = insert(gone).from_select(["image_id", "gone_at"], found).returning(gone.c.image_id)
    return len(connection.execute(marked).all())


def unmark(connection: Connection, image_ids: Sequence[int]) -> None:
    """They were seen again."""
    connection.execute(delete(gone).where(in_list(connection, gone.c.image_id, image_ids)))


def count(connection: Connection) -> int:
    """How many images are marked."""
    return connection.scalar(select(func.count()).select_from(gone)) or 0
