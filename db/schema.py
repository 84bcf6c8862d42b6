"""The tables and views, as queries see them. `db/migrations` makes them; a test holds the two together.

    images ──────────┬── predictions ── tag_scores        scores of the tags at or above the model's floor
    (one per uri)    ├── failures                         (model, image) is in one of the two, or it is pending
    models ── tags   ├── labels                           what people say of a tag of an image
                     └── gone                             images that are no longer where they were

PostgreSQL keeps one packed row an image: `predictions.tag_ids` and `predictions.scores`, two `smallint[]` in
step with each other, sorted by ascending score. `tag_scores` is a view that unnests them there. SQLite, which
has no arrays, keeps `tag_scores` as a table clustered by its key. Whoever reads `tag_scores` need not care.
"""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.types import UserDefinedType

Int16Array = npt.NDArray[np.int16]


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime: `timestamptz` on PostgreSQL, naive text in UTC on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value
        return value.replace(tzinfo=UTC)


class SmallintArray(UserDefinedType[Int16Array]):
    """`smallint[]` as a one-dimensional int16 array. PostgreSQL only; `db.sql.psycopg_arrays` does the bytes."""

    cache_ok = True

    def get_col_spec(self, **_kw: Any) -> str:
        return "SMALLINT[]"


metadata = MetaData()

# SQLite gives out ids by itself only for a column declared INTEGER, to the letter.
RowId = BigInteger().with_variant(Integer, "sqlite")

images = Table(
    "images",
    metadata,
    Column("id", RowId, Identity(), primary_key=True),
    # Bytewise order, whatever the server's locale is: the common prefix of min(uri) and max(uri) is that of all.
    Column("uri", Text().with_variant(Text(collation="C"), "postgresql"), nullable=False, unique=True),
    Column("version", Text, nullable=False),
    Column("bytes", BigInteger),
    Column("width", Integer),
    Column("height", Integer),
    Column("format", String(16)),
    Column("sha256", LargeBinary(32)),
    Column("added_at", UtcDateTime, nullable=False),
    Index("ix_images_sha256", "sha256", postgresql_using="hash"),
)

gone = Table(
    "gone",
    metadata,
    # No sequence: the id is the image's.
    Column("image_id", RowId, ForeignKey("images.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("gone_at", UtcDateTime, nullable=False),
)
"""Images that are no longer where they were, marked by `db.ledger.gone`. Queries exclude them by default."""

models = Table(
    "models",
    metadata,
    Column("id", RowId, Identity(), primary_key=True),
    Column("name", Text, nullable=False, index=True),
    # sha256 over everything that makes scores comparable: weights, preprocessing, head, tag list, floor.
    Column("fingerprint", String(64), nullable=False, unique=True),
    Column("weights_sha256", String(64), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("floor", SmallInteger, nullable=False),  # ten-thousandths
    Column("default_threshold", SmallInteger, nullable=False),  # ten-thousandths
    Column("added_at", UtcDateTime, nullable=False),
)

tags = Table(
    "tags",
    metadata,
    Column("model_id", RowId, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_id", SmallInteger, primary_key=True, autoincrement=False),  # output position, 0-based
    Column("name", Text, nullable=False),
    Column("category", Text),
)


BLOCK_RANGE = {"autosummarize": True, "pages_per_range": 32}
"""How PostgreSQL keeps an index that says of some pages at a time what may be in them."""


def _predictions(owner: MetaData, *packed: Column[Any]) -> Table:
    return Table(
        "predictions",
        owner,
        Column("model_id", RowId, ForeignKey(models.c.id, ondelete="CASCADE"), primary_key=True),
        Column("image_id", RowId, ForeignKey(images.c.id, ondelete="CASCADE"), primary_key=True),
        Column("image_version", Text, nullable=False),
        Column("predicted_at", UtcDateTime, nullable=False),
        *packed,
        # For who deletes an image: the foreign key looks its predictions up by image alone. Rows come in the order of
        # images, so PostgreSQL needs no tree.
        Index("ix_predictions_image_id", "image_id", postgresql_using="brin", postgresql_with=BLOCK_RANGE),
    )


predictions = _predictions(metadata)

packed_predictions = _predictions(
    MetaData(),
    Column("tag_ids", SmallintArray, nullable=False),
    Column("scores", SmallintArray, nullable=False),
)
"""`predictions` as PostgreSQL has it."""

failures = Table(
    "failures",
    metadata,
    Column("model_id", RowId, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("image_id", RowId, ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("image_version", Text, nullable=False),
    Column("reason", String(16), nullable=False),
    Column("detail", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("failed_at", UtcDateTime, nullable=False),
    Index("ix_failures_image_id", "image_id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("chunk_id", String(36), primary_key=True),
    Column("deliveries", Integer, nullable=False),
)
"""Chunks that a worker holds, or held when it died. Empty when nothing runs."""

workers = Table(
    "workers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("model_id", RowId, ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
    Column("device", Text, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("duplicates", Integer, nullable=False),
    Column("active_seconds", Double, nullable=False),
    *(Column(f"{stage}_seconds", Double, nullable=False) for stage in ("fetch", "decode", "wait", "infer", "write")),
    *(Column(f"{stage}_images", Integer, nullable=False) for stage in ("fetch", "decode", "wait", "infer", "write")),
)
"""The last minute of work of each worker process (`db.ledger.workers`), written along with its results."""

tag_scores = Table(
    "tag_scores",
    metadata,
    Column("model_id", RowId, primary_key=True),
    Column("image_id", RowId, primary_key=True),
    Column("tag_id", SmallInteger, primary_key=True, autoincrement=False),
    Column("score", SmallInteger, nullable=False),  # floor(probability * 10000)
    sqlite_with_rowid=False,
)

tag_probabilities = Table(
    "tag_probabilities",
    MetaData(),
    Column("model_id", RowId),
    Column("model", Text),
    Column("image_id", RowId),
    Column("uri", Text),
    Column("tag", Text),
    Column("category", Text),
    Column("probability", Numeric),
)
"""A view for people with psql or sqlite3 in hand."""

profiles = Table(
    "profiles",
    metadata,
    Column("id", RowId, Identity(), primary_key=True),
    Column("model_id", RowId, ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),  # 1, 2, ... a name never changes what it meant
    Column("policy", JSON, nullable=False),  # as `db.policy.policies.Policy.as_json` writes it
    Column("source", Text, nullable=False),  # in words: where it came from
    Column("added_at", UtcDateTime, nullable=False),
    UniqueConstraint("model_id", "name", "version", name="profiles_model_id_name_version_key"),
)

profile_thresholds = Table(
    "profile_thresholds",
    metadata,
    Column("profile_id", RowId, ForeignKey("profiles.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_id", SmallInteger, primary_key=True, autoincrement=False),
    Column("score", SmallInteger, nullable=False),  # the lowest to keep; 10001 keeps none
)
"""A policy worked out for every tag of the model, so that a join in SQL applies it."""

labels = Table(
    "labels",
    metadata,
    Column("image_id", RowId, ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", Text, primary_key=True),  # the name: a label serves every model that has the tag
    Column("judged_by", Text, primary_key=True),
    Column("is_right", Boolean, nullable=False),
    Column("judged_at", UtcDateTime, nullable=False),
    # What the person had before their eyes. A label outlives the model.
    Column("model_id", RowId, ForeignKey("models.id", ondelete="SET NULL")),
    Column("score", SmallInteger),  # null below the floor
    Column("image_version", Text, nullable=False),  # a label of another version of the file does not count
    Column("drawn", String(16), nullable=False),  # `db.truth.labels.Drawn`
    Index("ix_labels_tag", "tag"),
)
"""Judgements by people on (image, tag), as `db.truth.labels` reads them: the last word of each person."""
