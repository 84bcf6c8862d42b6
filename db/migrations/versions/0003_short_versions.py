"""Versions of images as a digest: ETags, stored twice per image, took a tenth of the database."""

import base64
import hashlib
from typing import Any

from alembic import op

revision = "0003"
down_revision = "0002"

TABLES = (("images", "version"), ("predictions", "image_version"), ("failures", "image_version"))


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        digest = "translate(left(encode(sha256(convert_to({0}, 'UTF8')), 'base64'), 7), '+/', '-_')"
    else:
        driver: Any = connection.connection.driver_connection
        driver.create_function("tagonce_digest", 1, _digest, deterministic=True)
        digest = "tagonce_digest({0})"
    for table, column in TABLES:
        op.execute(f"update {table} set {column} = {digest.format(column)} where length({column}) > 7")  # noqa: S608


def _digest(version: str) -> str:
    # A copy of `db.ledger.images.stored_version` as of this migration.
    return base64.urlsafe_b64encode(hashlib.sha256(version.encode()).digest())[:7].decode()
