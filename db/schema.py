"""The tables and views, as queries see them. `db/migrations` creates them; a test compares the two.

    images ──────────┬── predictions ── tag_scores        scores of the tags at or above the model's floor
    (one per uri)    ├── files                            what is known of the file since it was read
                     ├── failures                         a (model, image) without prediction or failure is pending
    models ── tags   ├── labels                           judgements by people on a tag of an image
                     └── gone                             images that no longer exist at their uri

Both databases store one packed row per image: `predictions.tag_ids` and `predictions.scores`, parallel and sorted by
ascending score. They are `smallint[]` on PostgreSQL, and blobs on SQLite, which has no arrays
(`db.sql.formats.blob_format`). The view `tag_scores` has a row per tag; a query on it is the same on both.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

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


class IntegerArray(UserDefinedType[Any]):
    """`integer[]`, bound as a one-dimensional int32 array. PostgreSQL only, as `SmallintArray`."""

    cache_ok = True

    def get_col_spec(self, **_kw: Any) -> str:
        return "INTEGER[]"


class SmallintArray(UserDefinedType[Any]):
    """`smallint[]` as a one-dimensional int16 array. PostgreSQL only (`db.sql.connection.psycopg_arrays`)."""

    cache_ok = True

    def get_col_spec(self, **_kw: Any) -> str:
        return "SMALLINT[]"

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str]:  # noqa: ARG002
        """For `COPY`, which takes no parameters."""
        return lambda array: "'{" + ",".join(map(str, array.tolist())) + "}'"


metadata = MetaData()

# SQLite assigns ids only to a column that is declared as INTEGER, literally.
RowId = BigInteger().with_variant(Integer, "sqlite")
# SQLite's tables declare a smallint, which limits nothing there.
TagId = Integer().with_variant(SmallInteger, "sqlite")
Packed = SmallintArray().with_variant(LargeBinary(), "sqlite")

images = Table(
    "images",
    metadata,
    Column("id", RowId, Identity(), primary_key=True),
    # Bytewise order under any locale of the server: the common prefix of min(uri) and max(uri) is that of all uris.
    Column("uri", Text().with_variant(Text(collation="C"), "postgresql"), nullable=False, unique=True),
    Column("version", Text, nullable=False),
    Column("bytes", BigInteger),  # as listed by the source; null if unknown
    Column("added_at", UtcDateTime, nullable=False),
)

files = Table(
    "files",
    metadata,
    # No sequence: this is the id of the image.
    Column("image_id", RowId, ForeignKey("images.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("bytes", BigInteger, nullable=False),  # as read
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("image_version", Text, nullable=False),  # a row of another version of the file is ignored
    Column("format", String(16), nullable=False),
    Column("sha256", LargeBinary(32), nullable=False),
    Index("ix_files_sha256", "sha256"),  # on PostgreSQL a hash index
)
"""What a worker found when it read the file of an image. A table of its own: an update of `images`, which has several
indexes, would enter the row in each of them anew."""

gone = Table(
    "gone",
    metadata,
    # No sequence: this is the id of the image.
    Column("image_id", RowId, ForeignKey("images.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("gone_at", UtcDateTime, nullable=False),
)
"""Images that no longer exist at their uri, marked by `db.ledger.gone`. Queries exclude them by default."""

models = Table(
    "models",
    metadata,
    Column("id", RowId, Identity(), primary_key=True),
    Column("name", Text, nullable=False, index=True),
    # SHA-256 over everything that makes scores comparable: weights, preprocessing, head, tag list, floor.
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
    Column("tag_id", TagId, primary_key=True, autoincrement=False),  # output position, 0-based
    Column("name", Text, nullable=False),
    Column("category", Text),
)


predictions = Table(
    "predictions",
    metadata,
    Column("model_id", RowId, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("image_id", RowId, ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("image_version", Text, nullable=False),
    Column("predicted_at", UtcDateTime, nullable=False),
    # On SQLite the bytes of a tag id are a property of the model: three from 16,385 tags on. On PostgreSQL the ids of
    # models with more than 32,767 tags are in a column `wide_tag_ids`, and this one is null.
    Column("tag_ids", Packed, nullable=False),
    Column("scores", Packed, nullable=False),  # floor(probability * 10000)
    # For the deletion of images: the foreign key looks up predictions by image alone. Rows are inserted roughly in
    # the order of images, so a BRIN index is enough on PostgreSQL.
    Index("ix_predictions_image_id", "image_id"),
)

changed_blocks = Table(
    "changed_blocks",
    metadata,
    Column("id", RowId, Identity(), primary_key=True),
    Column("model_id", RowId, ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
    Column("block", Integer, nullable=False),
)
"""Blocks of images whose predictions were written since their postings were built: a row per block and transaction.

Rows are only added by writers. `db.postings.build` deletes those that it saw, in the transaction that stores new
postings, so that the mark of a writer that was not committed yet stays."""

posting_blocks = Table(
    "posting_blocks",
    metadata,
    Column("model_id", RowId, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("block", Integer, primary_key=True, autoincrement=False),  # image_id >> 16
    Column("version", Integer, nullable=False),  # random, and one more with each build
    Column("floor", SmallInteger, nullable=False),  # postings have the scores from it on; ten-thousandths
    Column("images", Integer, nullable=False),  # with a prediction
    Column("present", LargeBinary, nullable=False),  # which ones: see `db.postings.block_format`, as for the following
    Column("neighbours", LargeBinary, nullable=False),
)
"""Blocks of 65,536 image ids that have postings."""

postings = Table(
    "postings",
    metadata,
    Column("model_id", RowId, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_id", TagId, primary_key=True, autoincrement=False),
    Column("block", Integer, primary_key=True, autoincrement=False),
    Column("piece", SmallInteger, primary_key=True, autoincrement=False),  # 0, 1, ... ascending by score
    Column("highest", SmallInteger, nullable=False),  # score
    Column("images", LargeBinary, nullable=False),  # little-endian uint16: image_id & 65535
    Column("scores", LargeBinary, nullable=False),  # parallel, little-endian uint16, ascending
)
"""The images of each tag. They are derived from `predictions`; `db.postings` builds and reads them."""

posting_counts = Table(
    "posting_counts",
    metadata,
    Column("model_id", RowId, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("step", SmallInteger, primary_key=True, autoincrement=False),  # of a threshold, in hundredths
    Column("block", Integer, primary_key=True, autoincrement=False),
    Column("counts", LargeBinary, nullable=False),  # for each tag: `db.postings.block_format`
)
"""Images that have each tag at or above a threshold, and the sums of their scores, of one block."""

low_scores = Table(
    "low_scores",
    metadata,
    Column("model_id", RowId, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_group", Integer, primary_key=True, autoincrement=False),  # tag_id // 64
    Column("block", Integer, primary_key=True, autoincrement=False),
    Column("counts", LargeBinary, nullable=False),
)
"""Images that have each tag in each step of 0.001 below the floor of the postings, of one block."""

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
"""Chunks that a worker holds, or held when it died, with their number of deliveries. Empty when nothing runs."""

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
"""The last minute of work of each worker process (`db.ledger.workers`), written with its results."""

tag_scores = Table(
    "tag_scores",
    MetaData(),
    Column("model_id", RowId),
    Column("image_id", RowId),
    Column("tag_id", TagId),
    Column("score", SmallInteger),
)
"""A view of the packed rows, one row per tag."""

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
"""A view for people who query with psql or sqlite3."""

profiles = Table(
    "profiles",
    metadata,
    Column("id", RowId, Identity(), primary_key=True),
    Column("model_id", RowId, ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),  # 1, 2, ...; a version never changes
    Column("policy", JSON, nullable=False),  # the format of `db.policy.policies.Policy.as_json`
    Column("source", Text, nullable=False),  # the origin, in words
    Column("added_at", UtcDateTime, nullable=False),
    UniqueConstraint("model_id", "name", "version", name="profiles_model_id_name_version_key"),
)

profile_thresholds = Table(
    "profile_thresholds",
    metadata,
    Column("profile_id", RowId, ForeignKey("profiles.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_id", TagId, primary_key=True, autoincrement=False),
    Column("score", SmallInteger, nullable=False),  # the lowest score to keep; 10001 keeps none
)
"""The threshold of each tag of the model under a policy, so that a join in SQL applies the policy."""

labels = Table(
    "labels",
    metadata,
    Column("image_id", RowId, ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", Text, primary_key=True),  # the name: a label serves every model that has the tag
    Column("judged_by", Text, primary_key=True),
    Column("is_right", Boolean, nullable=False),
    Column("judged_at", UtcDateTime, nullable=False),
    # The model, score and version that were shown to the person. A label outlives the model.
    Column("model_id", RowId, ForeignKey("models.id", ondelete="SET NULL")),
    Column("score", SmallInteger),  # null below the floor
    Column("image_version", Text, nullable=False),  # a label of another version of the file is ignored
    Column("drawn", String(16), nullable=False),  # `db.truth.labels.Drawn`
    Index("ix_labels_tag", "tag"),
)
"""The latest judgement of each person on (image, tag). `db.truth.labels` reads them."""
