"""An index of files by their hash, so that a duplicate needs no second inference; and the time spent by workers."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime(timezone=True)
STAGES = ("fetch", "decode", "wait", "infer", "write")


def upgrade() -> None:
    # A hash index on PostgreSQL: queries test equality alone, and it takes half the space of a B-tree over 32 bytes.
    op.create_index("ix_images_sha256", "images", ["sha256"], postgresql_using="hash")
    op.create_table(
        "workers",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("model_id", ROW_ID, sa.ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
        sa.Column("duplicates", sa.Integer, nullable=False),
        sa.Column("active_seconds", sa.Double, nullable=False),
        *(sa.Column(f"{stage}_seconds", sa.Double, nullable=False) for stage in STAGES),
        *(sa.Column(f"{stage}_images", sa.Integer, nullable=False) for stage in STAGES),
    )
