"""Synthetic databases of any size, without a model: scores are distributed as those of a booru tagger.

Tags per image lognormal around 180, tag popularity Zipf with exponent 0.9 over 9,083 tags,
score = 10000 * exp(-4.6 * u ** 0.6), dropped below 0.01: 191 tags an image. The same seed gives the same images.
"""

import hashlib
import itertools
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import psycopg

from db.database import Database
from db.ledger import models
from db.ledger.changed_blocks import block_of
from db.ledger.images import stored_version
from db.ledger.models import Model, Tag
from db.sql.connection import psycopg_arrays
from db.sql.formats.blob_format import NARROW, encode

TAGS = 9_083
FLOOR = 100
DEFAULT_THRESHOLD = 3_500
AT_ONCE = 2_000
VERSION = stored_version("d41d8cd98f00b204e9800998ecf8427e")
"""Of an ETag."""
FILE_BYTES = 250_000
FACTS = (VERSION, FILE_BYTES, 1_200, 900, "jpeg")

Int16Array = npt.NDArray[np.int16]

_AI_TAGS_ROW = np.dtype(
    [
        *(("fields", ">i2"), ("n1", ">i4"), ("image", ">i4"), ("n2", ">i4"), ("tag", ">i4")),
        *(("n3", ">i4"), ("score", ">i2")),
    ]
)
"""One row as PostgreSQL's binary COPY has it: number of fields, and before each field its length."""


@dataclass(frozen=True, slots=True)
class Images:
    """Some images and all their scores, ascending within an image."""

    first: int
    """Number of the first one."""
    offsets: npt.NDArray[np.int64]
    tag_ids: Int16Array
    scores: Int16Array

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def numbers(self) -> range:
        """1-based, as ids are."""
        return range(self.first + 1, self.first + 1 + len(self))

    def rows(self) -> Iterator[tuple[int, Int16Array, Int16Array]]:
        """(number, tag ids, scores)."""
        for number, (start, end) in zip(self.numbers, itertools.pairwise(self.offsets.tolist()), strict=True):
            yield number, self.tag_ids[start:end], self.scores[start:end]


def generate(number: int, seed: int = 0) -> Iterator[Images]:
    """Generate so many images, `AT_ONCE` in a batch."""
    random = np.random.default_rng(seed)
    popularity = np.cumsum(np.arange(1, TAGS + 1) ** -0.9)
    popularity /= popularity[-1]
    for first in range(0, number, AT_ONCE):
        images = min(AT_ONCE, number - first)
        wanted = np.clip(random.lognormal(np.log(180), 0.35, images), 5, 2_000).astype(np.int64)
        drawn = np.repeat(np.arange(images), wanted * 2)
        key = np.sort((drawn << 16) | np.searchsorted(popularity, random.random(drawn.size)))
        key = key[np.concatenate([[True], key[1:] != key[:-1]])]  # np.unique hashes, and took 20 times as long
        image = key >> 16
        # Twice as many are drawn, since popular tags are drawn repeatedly; surplus tags are dropped at random.
        share = wanted / np.bincount(image, minlength=images)
        score = (10_000 * np.exp(-4.6 * random.random(key.size) ** 0.6)).astype(np.int64)
        kept = (random.random(key.size) < share[image]) & (score >= FLOOR)
        whole = np.sort((image[kept] << 32) | (score[kept] << 16) | (key[kept] & 0xFFFF))
        offsets = np.searchsorted(whole >> 32, np.arange(images + 1))
        yield Images(first, offsets, (whole & 0xFFFF).astype(np.int16), ((whole >> 16) & 0xFFFF).astype(np.int16))


def names() -> list[str]:
    """Names of all tags, most popular first. The first have the names that docs/sql.md uses."""
    return ["animal", "cat", "dog", "car", *(f"tag_{position:04}" for position in range(4, TAGS))]


def uri(number: int) -> str:
    """URI as in a booru: by MD5, in folders of its first digits."""
    md5 = hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()
    return f"s3://booru/original/{md5[:2]}/{md5[2:4]}/{md5}.jpg"


def register(database: Database, categories: Sequence[str] = ("general",)) -> Model:
    """Register the model of all these scores.

    Args:
        categories: assigned to its tags in turn.
    """
    with database.write() as connection:
        return models.register(
            connection,
            name="synthetic",
            weights_sha256="0" * 64,
            spec={},
            tag_list=[Tag(*pair) for pair in zip(names(), itertools.cycle(categories))],
            floor=FLOOR,
            default_threshold=DEFAULT_THRESHOLD,
        )


def fill_postgresql(url: str, model: Model, images: list[Images]) -> None:
    """Fill the tables by COPY. `bench/ingest.py` measures the writes of workers."""
    now = datetime.now(UTC)
    with psycopg.connect(url) as connection:
        psycopg_arrays.register(connection)
        with connection.cursor().copy(
            "copy images (id, uri, version, bytes, added_at) from stdin (format binary)"
        ) as copy:
            copy.set_types(["int8", "text", "text", "int8", "timestamptz"])
            for batch in images:
                for number in batch.numbers:
                    copy.write_row((number, uri(number), VERSION, FILE_BYTES, now))
        with connection.cursor().copy(
            "copy files (image_id, image_version, bytes, width, height, format, sha256) from stdin (format binary)"
        ) as copy:
            copy.set_types(["int8", "text", "int8", "int4", "int4", "varchar", "bytea"])
            for batch in images:
                for number in batch.numbers:
                    copy.write_row((number, *FACTS, number.to_bytes(32)))
        with connection.cursor().copy(
            "copy predictions (model_id, image_id, image_version, predicted_at, tag_ids, scores) "
            "from stdin (format binary)"
        ) as copy:
            copy.set_types(["int8", "int8", "text", "timestamptz", "int2[]", "int2[]"])
            for batch in images:
                for number, tag_ids, scores in batch.rows():
                    copy.write_row((model.id, number, VERSION, now, tag_ids, scores))
        for block in _blocks(images):
            connection.execute("insert into changed_blocks (model_id, block) values (%s, %s)", (model.id, block))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("vacuum analyze")


def fill_sqlite(path: str, model: Model, images: list[Images]) -> None:
    """Fill the tables in the order of ids, with a few thousand images a transaction."""
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(" ")
    connection = sqlite3.connect(path)
    connection.execute("pragma synchronous = off")
    for batch in images:
        with connection:
            connection.executemany(
                "insert into images (id, uri, version, bytes, added_at) values (?, ?, ?, ?, ?)",
                ((number, uri(number), VERSION, FILE_BYTES, now) for number in batch.numbers),
            )
            connection.executemany(
                "insert into files (image_id, image_version, bytes, width, height, format, sha256) "
                "values (?, ?, ?, ?, ?, ?, ?)",
                ((number, *FACTS, number.to_bytes(32)) for number in batch.numbers),
            )
            connection.executemany(
                "insert into predictions (model_id, image_id, image_version, predicted_at, tag_ids, scores) "
                "values (?, ?, ?, ?, ?, ?)",
                (
                    (model.id, number, VERSION, now, *blobs)
                    for number, *blobs in zip(
                        batch.numbers,
                        encode([tag_ids for _, tag_ids, _ in batch.rows()], NARROW),
                        encode([scores for _, _, scores in batch.rows()], NARROW),
                        strict=True,
                    )
                ),
            )
    with connection:
        connection.executemany(
            "insert into changed_blocks (model_id, block) values (?, ?)",
            [(model.id, block) for block in _blocks(images)],
        )
    connection.execute("analyze")
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()


def _blocks(images: list[Images]) -> list[int]:
    return sorted({block_of(number) for batch in images for number in (batch.numbers[0], batch.numbers[-1])})


def make_ai_tags(connection: psycopg.Connection) -> None:
    """Create a table with one row a tag, as in danbooru (`ai_tags` in its db/structure.sql), without indexes."""
    connection.execute(
        "create table ai_tags (media_asset_id integer not null, tag_id integer not null, score smallint not null)"
    )


def index_ai_tags(connection: psycopg.Connection) -> None:
    """Create the three indexes of danbooru."""
    for columns in ("media_asset_id", "score", "tag_id, score"):
        connection.execute(f"create index on ai_tags ({columns})")


def ai_tags_rows(images: npt.NDArray[np.int64], tag_ids: Int16Array, scores: Int16Array) -> bytes:
    """The body of a binary COPY into `ai_tags`, from three columns of equal length."""
    rows = np.empty(tag_ids.size, dtype=_AI_TAGS_ROW)
    rows["fields"], rows["n1"], rows["n2"], rows["n3"] = 3, 4, 4, 2
    rows["image"], rows["tag"], rows["score"] = images, tag_ids, scores
    return b"PGCOPY\n\xff\r\n\0" + bytes(8) + rows.tobytes() + b"\xff\xff"


def fill_rows(url: str, images: list[Images], thresholds: Mapping[str, int]) -> None:
    """Fill tables with one row a tag and its three indexes, by COPY."""
    with psycopg.connect(url) as connection:
        connection.execute("create table images (id integer primary key, uri text not null)")
        connection.execute("create table tags (id integer primary key, name text not null, threshold smallint)")
        with connection.cursor().copy("copy images from stdin") as copy:
            for batch in images:
                copy.write("".join(f"{number}\t{uri(number)}\n" for number in batch.numbers))
        with connection.cursor().copy("copy tags from stdin") as copy:
            copy.write("".join(f"{tag}\t{name}\t{thresholds[name]}\n" for tag, name in enumerate(names())))
        make_ai_tags(connection)
        for batch in images:
            numbers = np.repeat(np.array(batch.numbers), np.diff(batch.offsets))
            with connection.cursor().copy("copy ai_tags from stdin (format binary)") as copy:
                copy.write(ai_tags_rows(numbers, batch.tag_ids, batch.scores))
        connection.execute("set maintenance_work_mem = '512MB'")
        index_ai_tags(connection)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("vacuum analyze")
