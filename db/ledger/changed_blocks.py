"""Marks of the blocks of images whose predictions have changed, so that their postings are not used (`db.postings`)."""

from collections.abc import Iterable

from sqlalchemy import Connection, insert

from db.schema import changed_blocks

BLOCK_BITS = 16
"""A block is 65,536 neighbouring ids of images."""


def block_of(image_id: int) -> int:
    """The block of an image."""
    return image_id >> BLOCK_BITS


def mark(connection: Connection, model_id: int, image_ids: Iterable[int]) -> None:
    """Note that predictions of a model were written or deleted in this transaction."""
    # A row of its own for each transaction: a builder deletes only the marks that its snapshot has, and no lock is
    # needed between writers and builders.
    if blocks := {block_of(image_id) for image_id in image_ids}:
        rows = [{"model_id": model_id, "block": block} for block in sorted(blocks)]
        connection.execute(insert(changed_blocks), rows)
