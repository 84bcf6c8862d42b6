"""Where the images are: buckets and top-level folders, and examples of their images."""

from sqlalchemy import Connection, func, select

from db.schema import images

MOST = 20
"""Largest number of locations."""
_PARTS = 4
"""Parts of `file:///folder` between slashes; `s3://bucket` has one less."""


def examples(connection: Connection) -> list[str]:
    """The first uri of each bucket and of each top-level folder, `MOST` at most. One index lookup for each."""
    found: list[str] = []
    after = ""
    while len(found) < MOST:
        uri = connection.scalar(select(func.min(images.c.uri)).where(images.c.uri >= after))
        if uri is None:
            break
        found.append(uri)
        location = "/".join(uri.split("/")[: 3 if uri.startswith("s3://") else _PARTS])
        after = location + "0"  # the character after the slash: skips all uris below the location
    return found


def spread(connection: Connection, number: int) -> list[str]:
    """The uris of at most `number` images, spread evenly over all ids."""
    first, last = connection.execute(select(func.min(images.c.id), func.max(images.c.id))).one()
    if first is None:
        return []
    wanted = {first + (last - first) * step // max(number - 1, 1) for step in range(number)}
    return list(connection.scalars(select(images.c.uri).where(images.c.id.in_(wanted)).order_by(images.c.id)))
