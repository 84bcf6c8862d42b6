"""Images that are gone, in a table of their own: a mark changes no row that workers lock or that is large.

Also indexes for the deletion of images, by which the foreign keys look up the rows of an image.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "gone",
        sa.Column("image_id", ROW_ID, sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("gone_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index(
        "ix_predictions_image_id",
        "predictions",
        ["image_id"],
        postgresql_using="brin",
        postgresql_with={"autosummarize": True, "pages_per_range": 32},
    )
    op.create_index("ix_failures_image_id", "failures", ["image_id"])
