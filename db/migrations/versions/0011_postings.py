"""Postings in place of the GIN indexes, and the view `tag_images` over them.

All blocks that have predictions are marked as changed, so that `tagonce index` builds their postings.
"""

import re

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TAG_ID = sa.Integer().with_variant(sa.SmallInteger, "sqlite")


def upgrade() -> None:
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    _create_tables()
    if is_postgresql:
        _drop_indexes_by_tag()
        # Pieces are stored in the row and as they are, since they do not compress.
        op.execute("alter table postings alter column images set storage plain, alter column scores set storage plain")
        for table, column in (
            ("posting_blocks", "present"),
            ("posting_blocks", "neighbours"),
            ("posting_counts", "counts"),
            ("low_scores", "counts"),
        ):
            op.execute(f"alter table {table} alter column {column} set storage external")  # compressed already
    _mark_all_blocks()
    op.execute("drop view tag_images")
    op.execute(_POSTGRESQL if is_postgresql else _SQLITE)


def _create_tables() -> None:
    def model_id(**options: object) -> sa.Column[int]:
        return sa.Column("model_id", ROW_ID, sa.ForeignKey("models.id", ondelete="CASCADE"), **options)  # type: ignore[arg-type]

    op.create_table(
        "changed_blocks",
        sa.Column("id", ROW_ID, sa.Identity(), primary_key=True),
        model_id(nullable=False),
        sa.Column("block", sa.Integer, nullable=False),
    )
    op.create_table(
        "posting_blocks",
        model_id(primary_key=True),
        sa.Column("block", sa.Integer, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("floor", sa.SmallInteger, nullable=False),
        sa.Column("images", sa.Integer, nullable=False),
        sa.Column("present", sa.LargeBinary, nullable=False),
        sa.Column("neighbours", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "postings",
        model_id(primary_key=True),
        sa.Column("tag_id", TAG_ID, primary_key=True),
        sa.Column("block", sa.Integer, primary_key=True),
        sa.Column("piece", sa.SmallInteger, primary_key=True),
        sa.Column("highest", sa.SmallInteger, nullable=False),
        sa.Column("images", sa.LargeBinary, nullable=False),
        sa.Column("scores", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "posting_counts",
        model_id(primary_key=True),
        sa.Column("step", sa.SmallInteger, primary_key=True),
        sa.Column("block", sa.Integer, primary_key=True),
        sa.Column("counts", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "low_scores",
        model_id(primary_key=True),
        sa.Column("tag_group", sa.Integer, primary_key=True),
        sa.Column("block", sa.Integer, primary_key=True),
        sa.Column("counts", sa.LargeBinary, nullable=False),
    )


def _drop_indexes_by_tag() -> None:
    indexes = op.get_bind().scalars(sa.text("select indexname from pg_indexes where tablename = 'predictions'"))
    for name in indexes.all():
        if re.fullmatch("search_model_[0-9]+_score_[0-9]+", name):
            op.drop_index(name, "predictions")


def _mark_all_blocks() -> None:
    connection = op.get_bind()
    first = sa.text("select min(image_id) from predictions where model_id = :model_id and image_id >= :start")
    for model_id in connection.scalars(sa.text("select id from models")).all():
        start = 0
        # One look-up in the index for each block, whatever the number of images.
        while (image_id := connection.scalar(first, {"model_id": model_id, "start": start})) is not None:
            block = image_id >> 16
            connection.execute(
                sa.text("insert into changed_blocks (model_id, block) values (:model_id, :block)"),
                {"model_id": model_id, "block": block},
            )
            start = block + 1 << 16


# The pieces of the blocks whose postings are current, and the rows of the other blocks. With `offset 0`, PostgreSQL
# takes a piece out of its row once.
_POSTGRESQL = """
    create view tag_images as
    select k.model_id, k.tag_id, k.name as tag, k.category, found.image_id, i.uri, found.score,
        found.score / 10000.0 as probability
    from tags k
    cross join lateral (
        select (p.block::bigint << 16) + get_byte(p.images, 2 * n) + get_byte(p.images, 2 * n + 1) * 256 as image_id,
            (get_byte(p.scores, 2 * n) + get_byte(p.scores, 2 * n + 1) * 256)::smallint as score
        from (
            select block, images, scores from postings
            where model_id = k.model_id and tag_id = k.tag_id
                and block not in (select c.block from changed_blocks c where c.model_id = k.model_id)
            offset 0
        ) p cross join lateral generate_series(0, length(p.scores) / 2 - 1) n
        union all
        select p.image_id, p.scores[row.at] as score
        from (select distinct block from changed_blocks c where c.model_id = k.model_id) changed
        join predictions p on p.model_id = k.model_id
            and p.image_id >= changed.block::bigint << 16 and p.image_id < changed.block::bigint + 1 << 16
        cross join lateral (
            select case when p.wide_tag_ids is null then array_position(p.tag_ids, k.tag_id::smallint)
                else array_position(p.wide_tag_ids, k.tag_id) end as at
            offset 0
        ) row
        where p.scores[row.at]
            >= coalesce((select max(b.floor) from posting_blocks b where b.model_id = k.model_id), 0)
    ) found
    join images i on i.id = found.image_id
"""

_ANY = f"x'{bytes(range(256)).hex()}'"
_FIRST, _NEXT = (f"x'{bytes(range(start, start + 128)).hex()}'" for start in (128, 0))
"""The first bytes of packed numbers, and their other bytes, in order, as of this migration."""


def _integer(blob: str, position: str) -> str:
    """A little-endian uint16 of a blob, in SQL. unicode() of a byte from 128 on is no number."""
    low, high = (f"instr({_ANY}, substr({blob}, {position} + {byte}, 1)) - 1" for byte in (1, 2))
    return f"({low} + ({high}) * 256)"


def _blob(*parts: str) -> str:
    """A tag id as a blob, in SQL. `||` makes text of blobs, byte by byte."""
    digits = " || ".join(f"substr({_NEXT if more else _FIRST}, ({part}) + 1, 1)" for more, part in enumerate(parts))
    return f"cast({digits} as blob)"


_NARROW = _blob("k.tag_id >> 7", "k.tag_id & 127")
_WIDE = _blob("k.tag_id >> 14", "k.tag_id >> 7 & 127", "k.tag_id & 127")
# `cross join` keeps the order, which begins with the tag. The positions in a piece are three digits, and each is
# compared before the next one is added. unicode() of a zero byte is null.
_SQLITE = f"""
    create view tag_images as
    with digits (digit) as (values (0), (1), (2), (3), (4), (5), (6), (7), (8), (9))
    select k.model_id, k.tag_id, k.name as tag, k.category, i.id as image_id, i.uri,
        {_integer("p.scores", "2 * (a.digit * 100 + b.digit * 10 + c.digit)")} as score,
        {_integer("p.scores", "2 * (a.digit * 100 + b.digit * 10 + c.digit)")} / 10000.0 as probability
    from tags k cross join postings p on p.model_id = k.model_id and p.tag_id = k.tag_id
        and p.block not in (select block from changed_blocks where model_id = k.model_id)
    cross join digits a on a.digit * 200 < length(p.scores)
    cross join digits b on a.digit * 200 + b.digit * 20 < length(p.scores)
    cross join digits c on a.digit * 200 + b.digit * 20 + c.digit * 2 < length(p.scores)
    cross join images i
        on i.id = (p.block << 16) + {_integer("p.images", "2 * (a.digit * 100 + b.digit * 10 + c.digit)")}
    union all
    select model_id, tag_id, tag, category, image_id, uri, score, score / 10000.0 from (
        select f.*, i.uri, (instr({_FIRST}, substr(f.scores, f.at, 1)) - 1) * 128
            + coalesce(unicode(cast(substr(f.scores, f.at + 1, 1) as text)), 0) as score
        from (
            select k.model_id, k.tag_id, k.name as tag, k.category, p.image_id, p.scores,
                coalesce((select max(floor) from posting_blocks where model_id = k.model_id), 0) as lowest,
                case when length(p.tag_ids) > length(p.scores) then (instr(p.tag_ids, {_WIDE}) + 2) / 3 * 2 - 1
                    else instr(p.tag_ids, {_NARROW}) end as at
            from tags k
            cross join (select distinct model_id, block from changed_blocks) n on n.model_id = k.model_id
            cross join predictions p on p.model_id = k.model_id
                and p.image_id >= n.block << 16 and p.image_id < n.block + 1 << 16
        ) f cross join images i on i.id = f.image_id
        where f.at > 0
    ) where score >= lowest
"""  # noqa: S608 - constants
