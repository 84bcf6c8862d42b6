"""Moves the labels of an image when its file is moved: the same bytes under another reference.

Predictions are not moved: `db.ledger.duplicates` reuses those of known bytes.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, Subquery, and_, delete, exists, func, not_, select, tuple_

from db.schema import files, gone, images, labels
from db.sql.current_file import is_file_of
from db.sql.gone_scope import is_gone
from db.sql.in_list import in_list
from db.sql.rows.upsert import insert_into


def move_labels(connection: Connection, to: Sequence[int] | None = None) -> int:
    """Move labels of images that are gone to an image that is present and has the same content.

    Of several such images the first one gets the labels. Its own labels by the same person are kept. A second call
    finds nothing to move.

    Args:
        to: ids of the images that may get labels; None for all.

    Returns:
        Number of labels removed from images that are gone.
    """
    if not connection.scalar(select(and_(exists().select_from(gone), exists().select_from(labels)))):
        return 0
    moving = _moving(connection, to)
    if not connection.scalar(select(exists().select_from(moving))):
        return 0
    kept = [column for column in labels.c if column.name not in {"image_id", "image_version"}]
    names = ["image_id", "image_version", *(column.name for column in kept)]
    of_moved = labels.join(moving, moving.c.gone_id == labels.c.image_id)
    rows = select(moving.c.new_id, moving.c.new_version, *kept).select_from(of_moved)
    rows = rows.where(labels.c.image_version == moving.c.gone_version).order_by(labels.c.judged_at.desc())
    connection.execute(insert_into(connection, labels).from_select(names, rows).on_conflict_do_nothing())
    # Deleted at the old image: a label that is taken back at the new image must not be moved there again.
    old = select(moving.c.gone_id, moving.c.gone_version)
    done = delete(labels).where(tuple_(labels.c.image_id, labels.c.image_version).in_(old))
    return connection.execute(done).rowcount


def _moving(connection: Connection, to: Sequence[int] | None) -> Subquery:
    """(gone_id, gone_version, new_id, new_version): images that are gone and have labels, and images of their bytes."""
    old, copy, new = images.alias("old"), images.alias("copy"), images.alias("new")
    old_file, same_file = files.alias("old_file"), files.alias("same_file")
    labelled = exists().where(labels.c.image_id == old.c.id, labels.c.image_version == old.c.version)
    # A join leaves the direction to the planner: from the few images of a worker by their hashes, or from all labels.
    pairs = select(old.c.id, old.c.version, func.min(copy.c.id).label("new_id")).select_from(
        gone.join(old, old.c.id == gone.c.image_id)
        .join(old_file, is_file_of(old_file, old))
        .join(same_file, same_file.c.sha256 == old_file.c.sha256)
        .join(copy, is_file_of(same_file, copy))
    )
    pairs = pairs.where(labelled, not_(is_gone(copy.c.id)))
    if to is not None:
        pairs = pairs.where(in_list(connection, copy.c.id, to))
    found = pairs.group_by(old.c.id, old.c.version).subquery("found")
    return (
        select(
            found.c.id.label("gone_id"),
            found.c.version.label("gone_version"),
            found.c.new_id,
            new.c.version.label("new_version"),
        )
        .select_from(found.join(new, new.c.id == found.c.new_id))
        .subquery("moving")
    )
