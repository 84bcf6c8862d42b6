"""Judgements by people on the tags of images."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "labels",
        sa.Column("image_id", ROW_ID, sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("tag", sa.Text, primary_key=True),
        sa.Column("judged_by", sa.Text, primary_key=True),
        sa.Column("is_right", sa.Boolean, nullable=False),
        sa.Column("judged_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_id", ROW_ID, sa.ForeignKey("models.id", ondelete="SET NULL")),
        sa.Column("score", sa.SmallInteger),
        sa.Column("image_version", sa.Text, nullable=False),
        sa.Column("drawn", sa.String(16), nullable=False),
    )
    op.create_index("ix_labels_tag", "labels", ["tag"])
