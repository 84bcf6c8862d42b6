"""Where the images are: the buckets and the folders at the top, an example of each."""

from sqlalchemy import Connection, func, select

from db.schema import images

MOST = 20
"""Places that are looked for."""
_PARTS = 4
"""`s3:`, nothing, the bucket; `file:`, nothing, nothing, the folder at the top."""


def examples(connection: Connection) -> list[str]:
    """The first uri of each bucket, and of each folder at the root of a file system. A look in an index for each."""
    found: list[str] = []
    after = ""
    while len(found) < MOST:
        uri = connection.scalar(select(func.min(images.c.uri)).where(images.c.uri >= after))
        if uri is None:
            break
        found.append(uri)
        place = "/".join(uri.split("/")[: 3 if uri.startswith("s3://") else _PARTS])
        after = place + "0"  # what follows the slash, so that nothing below the place comes again
    return found


def spread(connection: Connection, number: int) -> list[str]:
    """The uris of about so many images, spread evenly over all that are known, by their ids."""
    first, last = connection.execute(select(func.min(images.c.id), func.max(images.c.id))).one()
    if first is None:
        return []
    wanted = {first + (last - first) * step // max(number - 1, 1) for step in range(number)}
    return list(connection.scalars(select(images.c.uri).where(images.c.id.in_(wanted)).order_by(images.c.id)))
