"""What is known of each file after it was read, in a table of its own: rows of `images` are not written again.

Results were an update of `images` for each image, which set an indexed column. So every result entered all indexes of
`images` anew.
"""

import re

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_MOVED = ("width", "height", "format", "sha256")
ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("image_id", ROW_ID, sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("image_version", sa.Text, nullable=False),
        sa.Column("format", sa.String(16), nullable=False),
        sa.Column("sha256", sa.LargeBinary(32), nullable=False),
    )
    # Results and registrations always wrote or cleared these columns together.
    op.execute(
        """
        insert into files (image_id, bytes, width, height, image_version, format, sha256)
        select id, bytes, width, height, version, format, sha256 from images where sha256 is not null order by id
        """
    )
    op.drop_index("ix_images_sha256", "images")
    if op.get_bind().dialect.name == "sqlite":
        _drop_other_indexes()
    op.create_index("ix_files_sha256", "files", ["sha256"], postgresql_using="hash")
    for name in _MOVED:
        op.drop_column("images", name)


def _drop_other_indexes() -> None:
    """Drop the user's own indexes on these columns: SQLite refuses to drop a column that has one."""
    indexes = "select name, sql from sqlite_master where type = 'index' and tbl_name = 'images' and sql is not null"
    for name, statement in op.get_bind().exec_driver_sql(indexes).all():
        if any(re.search(rf"\b{column}\b", statement) for column in _MOVED):
            op.drop_index(name, "images")
