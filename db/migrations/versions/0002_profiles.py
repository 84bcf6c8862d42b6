"""Named profiles of thresholds, each of one model."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "profiles",
        sa.Column("id", ROW_ID, sa.Identity(), primary_key=True),
        sa.Column("model_id", ROW_ID, sa.ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("policy", sa.JSON, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("model_id", "name", "version", name="profiles_model_id_name_version_key"),
    )
    op.create_table(
        "profile_thresholds",
        sa.Column("profile_id", ROW_ID, sa.ForeignKey("profiles.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("tag_id", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("score", sa.SmallInteger, nullable=False),
    )
