"""SQL elements for one threshold over stored scores. The compilers below hold the SQL of each dialect.

PostgreSQL: scores ascend within a row, so `width_bucket` is a binary search in C, and the tags at or above a score are
a slice at the end of the row. SQLite hands out whole blobs, which numpy cuts (`db.sql.scores.packed`). Policies with
more than one threshold start from the tags at or above their lowest one (`db.read.tag_batches`).
"""

from sqlalchemy import ColumnElement, and_

from db.schema import images


def start_of_slice(score: str) -> str:
    """PostgreSQL: the position in a row of `predictions` where the scores at or above a score begin, 1-based."""
    # Scores are integers: "at least s" is "above s - 1", which a bucket search finds.
    return f"width_bucket(({score} - 1)::smallint, predictions.scores) + 1"


def begins_with(prefix: str) -> ColumnElement[bool]:
    """The condition that the uri of an image begins with a prefix, case-sensitive and without wildcards."""
    # A range can use the index on uri. LIKE would need escaped wildcards and an index that is independent of the
    # locale. Two comparisons, since PostgreSQL's BETWEEN accepts no collation at its bounds.
    return and_(images.c.uri >= prefix, images.c.uri <= prefix + "\U0010ffff")
