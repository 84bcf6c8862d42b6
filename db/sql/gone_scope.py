"""The scope of a transaction: images that are present, images that are gone, or all.

`Database.read(gone=...)` sets the scope. Every query on images and predictions has the condition `in_scope`.
"""

from sqlalchemy import Column, ColumnElement, Connection, and_, exists, not_, true

from db.schema import gone, predictions
from db.scope import Gone

OPTION = "tagonce_gone"
"""Execution option of a connection with its `Gone`."""


_marked = gone.alias("marked")
"""An alias, so that queries can also refer to `gone` itself."""


def is_gone(image_id: ColumnElement[int]) -> ColumnElement[bool]:
    """The condition that an image is marked as gone."""
    return exists().where(_marked.c.image_id == image_id)


def scope_of(connection: Connection) -> Gone:
    """The scope of the transaction."""
    return Gone(connection.get_execution_options().get(OPTION, Gone.EXCLUDE))


def in_scope(connection: Connection, image_id: Column[int]) -> ColumnElement[bool]:
    """The condition that an image is in the scope of the transaction: by default, that it is not gone."""
    match scope_of(connection):
        case Gone.INCLUDE:
            return true()
        case Gone.ONLY:
            return is_gone(image_id)
        case _:
            return not_(is_gone(image_id))


def tagged(connection: Connection, model_id: int) -> ColumnElement[bool]:
    """The condition on rows of `predictions` that they are of a model and their images in the transaction's scope."""
    return and_(predictions.c.model_id == model_id, in_scope(connection, predictions.c.image_id))
