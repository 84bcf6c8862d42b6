"""A view for questions about a tag: it looks up the tag in each packed row, and unpacks no other."""

from alembic import op

revision = "0010"
down_revision = "0009"

_FIRST, _NEXT = (f"x'{bytes(range(start, start + 128)).hex()}'" for start in (128, 0))
"""The first bytes of numbers, and their other bytes, in order: `db.sql.formats.blob_format` as of this migration."""


def upgrade() -> None:
    op.execute(_POSTGRESQL if op.get_bind().dialect.name == "postgresql" else _SQLITE)


def _blob(*parts: str) -> str:
    """A tag id as a blob, in SQL. `||` makes text of blobs, byte by byte."""
    digits = " || ".join(f"substr({_NEXT if more else _FIRST}, ({part}) + 1, 1)" for more, part in enumerate(parts))
    return f"cast({digits} as blob)"


_NARROW = _blob("k.tag_id >> 7", "k.tag_id & 127")
_WIDE = _blob("k.tag_id >> 14", "k.tag_id >> 7 & 127", "k.tag_id & 127")
# `cross join` keeps the order, which begins with the tag: SQLite would begin with all images. unicode() of a zero byte
# is null.
_SQLITE = f"""
    create view tag_images as
    select model_id, tag_id, tag, category, image_id, uri, score, score / 10000.0 as probability from (
        select f.*, i.uri, (instr({_FIRST}, substr(f.scores, f.at, 1)) - 1) * 128
            + coalesce(unicode(cast(substr(f.scores, f.at + 1, 1) as text)), 0) as score
        from (
            select k.model_id, k.tag_id, k.name as tag, k.category, p.image_id, p.scores,
                case when length(p.tag_ids) > length(p.scores) then (instr(p.tag_ids, {_WIDE}) + 2) / 3 * 2 - 1
                    else instr(p.tag_ids, {_NARROW}) end as at
            from tags k cross join predictions p on p.model_id = k.model_id
        ) f cross join images i on i.id = f.image_id
        where f.at > 0
    )
"""  # noqa: S608 - constants
_POSTGRESQL = """
    create view tag_images as
    select k.model_id, k.tag_id, k.name as tag, k.category, p.image_id, i.uri, p.scores[found.at] as score,
        p.scores[found.at] / 10000.0 as probability
    from tags k
    join predictions p on p.model_id = k.model_id
    -- `offset 0` keeps the planner from computing the position once for each of its uses.
    cross join lateral (
        select case when p.wide_tag_ids is null then array_position(p.tag_ids, k.tag_id::smallint)
            else array_position(p.wide_tag_ids, k.tag_id) end as at
        offset 0
    ) found
    join images i on i.id = p.image_id
    where found.at is not null
"""
