"""Which images a transaction reads: those that are there, those that are gone, or all.

`Database.read(gone=...)` sets the scope. Every query on images and predictions has the condition
`in_scope`.
"""

from enum import StrEnum

from sqlalchemy import Column, ColumnElement, Connection, and_, exists, not_, true

from db.schema import gone, predictions


class Gone(StrEnum):
    """Which images a transaction reads."""

    EXCLUDE = "exclude"
    """Those that are there."""
    INCLUDE = "include"
    """All."""
    ONLY = "only"
    """Those that are gone."""


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


def tagged(connection: Connection, model_id: int) -> ColumnElement[bool]:
    """The rows of `predictions` of a model whose images are in the scope of the transaction."""
    return and_(predictions.c.model_id == model_id, in_scope(connection, predictions.c.image_id))
