"""The join of `files` with `images`."""

from sqlalchemy import ColumnElement, FromClause, and_

from db.schema import files, images


def is_file_of(file: FromClause = files, image: FromClause = images) -> ColumnElement[bool]:
    """The condition that a row of `files` describes the registered version of an image. At most one row does."""
    return and_(file.c.image_id == image.c.id, file.c.image_version == image.c.version)
