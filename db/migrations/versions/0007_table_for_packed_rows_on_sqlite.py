"""A table for packed rows on SQLite: `db.migrations.packing` moves the rows into it, 0008 puts it in their place."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        return
    op.create_table(
        "predictions_packed",
        sa.Column("model_id", ROW_ID, sa.ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("image_id", ROW_ID, sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("image_version", sa.Text, nullable=False),
        sa.Column("predicted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tag_ids", sa.LargeBinary, nullable=False),
        sa.Column("scores", sa.LargeBinary, nullable=False),
    )
    # The indexes move at once: to make them for a full table would block other writers for minutes.
    for name, columns in (
        ("ix_predictions_predicted_at", ["model_id", "predicted_at"]),
        ("ix_predictions_image_id", ["image_id"]),
    ):
        op.drop_index(name)
        op.create_index(name, "predictions_packed", columns)
