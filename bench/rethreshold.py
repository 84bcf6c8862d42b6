"""The cost of thresholds on stored scores: tagonce on PostgreSQL and SQLite compared with alternatives.

    python bench/rethreshold.py [--images 100000] [--stores postgresql,sqlite,rows,duckdb] [--before HEAD~1]

    postgresql  tagonce's packed rows
    sqlite      tagonce's packed rows, as blobs
    rows        one row a tag in the same PostgreSQL, with the columns and the three indexes of danbooru's ai_tags
    duckdb      DuckDB over the Parquet file that `tagonce export --format parquet` wrote

No model is involved: synthetic images are written directly to the stores (`bench/synthetic.py`). Every query is run
once to warm up and then timed. The run fails if the stores give different results. With `--before`, commands of this
tree and of another commit then run in turn on the stores of tagonce; a second table has the CPU seconds of each command
with its server, the least of three runs. The run fails if their outputs differ. Needs `pip install --group bench`.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import psycopg
import services
import synthetic
from rich.console import Console
from rich.table import Table
from sqlalchemy import select, text
from startup import tree_of
from synthetic import Images

from db.database import open_database
from db.ledger import models
from db.policy import profiles
from db.policy.policies import Policy, resolve
from db.postings.build import update_postings
from db.read.comparison import compare as compare_policies
from db.read.histograms import histogram
from db.read.tag_counts import tag_counts
from db.schema import predictions
from db.search import execute as search
from db.search.query import Node, parse
from db.sql.scores.packed import packed, unpack
from db.sql.streams import stream_rows

ROOT = Path(__file__).resolve().parent.parent
SCORE = 3_500
RARE = synthetic.TAGS - 83
"""The tag of rank 9,000 by popularity."""
THRESHOLDS = dict(
    zip(synthetic.names(), np.random.default_rng(1).integers(1_000, 9_000, synthetic.TAGS).tolist(), strict=True)
)
"""A score for each tag, at or above the floor of postings."""

COUNT = "tags at 0.35, and images with one"
PER_TAG = "images of each tag at 0.35"
PER_TAG_OWN = "images of each tag, a threshold a tag"
SEARCH = "images with animal:0.5 -cat:0.2, common tags"
SEARCH_RARE = "images with a rare tag at 0.35"
FIVE = "five tags with ~ and -: how many, and the best 100"
FIVE_TAGS = "( animal:0.3 ~ cat:0.3 ) -dog:0.2 -car:0.2 tag_0004:0.15"
HISTOGRAM = "histogram of a common tag, from 0.1 on"
CHANGES = "images and tags that change from 0.35 to 0.4"
CAPTIONS = "captions of every image at 0.35, to a file"
INDEXED = ", tagonce index"

Steps = Iterator[tuple[str, Callable[[], Any]]]


@dataclass
class Place:
    """Where the stores are created, and the images."""

    folder: Path
    server: str
    """URL of the PostgreSQL."""
    images: list[Images]

    @property
    def number(self) -> int:
        return sum(len(batch) for batch in self.images)


@dataclass
class Column:
    """The column of one store in the table."""

    title: str
    cells: dict[str, str] = field(default_factory=dict)


class Tagonce:
    """tagonce on either database."""

    def __init__(self, place: Place, url: str) -> None:
        self.place, self.url = place, url
        self.remarks: dict[str, str] = {}
        self.database = open_database(url)
        self.model = synthetic.register(self.database)
        with self.database.read() as connection:
            self.tags = models.tag_names(connection, self.model.id)

    def steps(self) -> Steps:
        common, rare, five = map(self.parsed, ("animal:0.5 -cat:0.2", synthetic.names()[RARE], FIVE_TAGS))
        questions: dict[str, Callable[[], Any]] = {
            PER_TAG: lambda: self.per_tag(Policy(SCORE)),
            PER_TAG_OWN: lambda: self.per_tag(Policy(tags=THRESHOLDS)),
            SEARCH: lambda: self.number_of(common),
            SEARCH_RARE: lambda: self.images_with(rare),
            FIVE: lambda: self.five(five),
            HISTOGRAM: self.histogram,
            CHANGES: self.changes,
        }
        yield COUNT, self.count
        yield CAPTIONS, self.captions
        yield from questions.items()
        self.build_index()
        yield from ((question + INDEXED, ask) for question, ask in questions.items())

    def count(self) -> Any:
        raise NotImplementedError

    def per_tag(self, policy: Policy) -> Any:
        with self.database.read() as connection:
            cut = resolve(self.model, self.tags, policy)
            return {one.tag: one.images for one in tag_counts(connection, self.model, cut)}

    def number_of(self, tree: Node) -> Any:
        with self.database.read() as connection:
            return search.count(connection, self.model, tree)

    def images_with(self, tree: Node) -> Any:
        with self.database.read() as connection:
            return sorted(hit.uri for hit in search.search(connection, self.model, tree))

    def five(self, tree: Node) -> Any:
        with self.database.read() as connection:
            hits = search.search(connection, self.model, tree, sort=0, limit=100)
            return search.count(connection, self.model, tree), [hit.probability for hit in hits]

    def histogram(self) -> Any:
        with self.database.read() as connection:
            return histogram(connection, self.model, 0, 20).counts[2:]

    def changes(self) -> Any:
        cuts = [resolve(self.model, self.tags, Policy(score)) for score in (SCORE, 4_000)]
        with self.database.read() as connection:
            found = compare_policies(connection, self.model, *cuts)
        return found.changed, int(found.lost.sum())

    def parsed(self, query: str) -> Node:
        return parse(query, self.model, self.tags, resolve(self.model, self.tags, Policy(SCORE)))

    def captions(self) -> Any:
        """The whole command, in its own process."""
        out = self.place.folder / "captions.jsonl"
        export(self, out, "jsonl", "0.35")
        with out.open("rb") as file:
            return sum(1 for _line in file)

    def build_index(self) -> None:
        before = self.bytes_on_disk()
        begun = time.perf_counter()
        update_postings(self.database, self.model)
        seconds = time.perf_counter() - begun
        size = (self.bytes_on_disk() - before) / self.place.number
        self.remarks["index at 0.1"] = f"{seconds:.1f} s, {size:,.0f} bytes an image"

    def sizes(self) -> dict[str, int]:
        return {"scores and references": self.bytes_on_disk()}

    def bytes_on_disk(self) -> int:
        raise NotImplementedError


class OnPostgreSQL(Tagonce):
    title = "tagonce, PostgreSQL"

    def __init__(self, place: Place) -> None:
        with psycopg.connect(place.server, autocommit=True) as connection:
            connection.execute("create database ours")
        super().__init__(place, place.server.replace("/postgres?", "/ours?"))
        synthetic.fill_postgresql(self.url, self.model, place.images)

    def count(self) -> Any:
        query = (
            "select sum(n), count(*) filter (where n > 0) from (select cardinality(scores) "
            f"- width_bucket({SCORE - 1}::smallint, scores) as n from predictions) each"
        )
        with self.database.read() as connection:
            return tuple(connection.execute(text(query)).one())

    def sizes(self) -> dict[str, int]:
        scores, references = self.relation("predictions"), self.relation("images") + self.relation("files")
        return {"scores": scores, "references": references, "scores and references": scores + references}

    def bytes_on_disk(self) -> int:
        return sum(map(self.relation, ("predictions", "images", "files", *INDEX)))

    def relation(self, name: str) -> int:
        """Bytes of a table with its indexes."""
        with self.database.read() as connection:
            return connection.scalar(text("select pg_total_relation_size(:name)"), {"name": name}) or 0


class OnSqlite(Tagonce):
    title = "tagonce, SQLite"

    def __init__(self, place: Place) -> None:
        self.file = place.folder / "tags.db"
        super().__init__(place, f"sqlite:///{self.file}")
        synthetic.fill_sqlite(str(self.file), self.model, place.images)

    def count(self) -> Any:
        tags = tagged = 0
        with self.database.read() as connection:
            query = select(*packed(connection, SCORE)).select_from(predictions)
            for rows in stream_rows(connection, query, 2_000):
                counts, _tag_ids, _scores = unpack(connection, rows, SCORE)
                tags, tagged = tags + int(counts.sum()), tagged + int(np.count_nonzero(counts))
        return tags, tagged

    def bytes_on_disk(self) -> int:
        with self.database.engine.connect() as connection:
            connection.execute(text("pragma wal_checkpoint(truncate)"))
        return self.file.stat().st_size


OF_TAG = "select score / 500, count(*) from ai_tags where tag_id = 0 and score >= 1000 group by 1"


class Rows:
    """The schema of a booru: one row a tag, queried with its own SQL."""

    title = "PostgreSQL, a row a tag"

    def __init__(self, place: Place) -> None:
        self.place = place
        self.remarks: dict[str, str] = {}
        with psycopg.connect(place.server, autocommit=True) as connection:
            connection.execute("create database rows")
        url = place.server.replace("/postgres?", "/rows?")
        self.connection = psycopg.connect(url, autocommit=True)
        synthetic.fill_rows(url, place.images, THRESHOLDS)

    def sizes(self) -> dict[str, int]:
        return {"scores": self.ask("select pg_total_relation_size('ai_tags')")[0][0]}

    def steps(self) -> Steps:
        yield (
            COUNT,
            lambda: self.ask(f"select count(*), count(distinct media_asset_id) from ai_tags where score >= {SCORE}")[0],
        )
        per_tag = "select t.name, count(*) from ai_tags a join tags t on t.id = a.tag_id where a.score >= {} group by 1"
        yield PER_TAG, lambda: dict(self.ask(per_tag.format(SCORE)))
        yield PER_TAG_OWN, lambda: dict(self.ask(per_tag.format("t.threshold")))
        yield (
            SEARCH,
            lambda: self.ask(
                "select count(*) from (select media_asset_id from ai_tags where tag_id = 0 and score >= 5000) a "
                "where not exists (select 1 from ai_tags b "
                "where b.media_asset_id = a.media_asset_id and b.tag_id = 1 and b.score >= 2000)"
            )[0][0],
        )
        yield SEARCH_RARE, lambda: [row[0] for row in self.ask(
            "select i.uri from ai_tags a join images i on i.id = a.media_asset_id "
            f"where a.tag_id = {RARE} and a.score >= {SCORE} order by 1"
        )]  # fmt: skip
        yield FIVE, self.five
        yield HISTOGRAM, lambda: self.bins(OF_TAG)
        between = "select count(distinct media_asset_id), count(*) from ai_tags where score >= 3500 and score < 4000"
        yield CHANGES, lambda: self.ask(between)[0]
        yield CAPTIONS, self.captions

    def five(self) -> Any:
        having = "exists (select 1 from ai_tags b where b.media_asset_id = a.media_asset_id and {})"
        where = " and ".join([
            having.format("b.tag_id in (0, 1) and b.score >= 3000"),
            "not " + having.format("b.tag_id in (2, 3) and b.score >= 2000"),
        ])  # fmt: skip
        found = f"select a.media_asset_id as id from ai_tags a where a.tag_id = 4 and a.score >= 1500 and {where}"
        best = f"select s.score from ({found}) f left join ai_tags s on s.media_asset_id = f.id and s.tag_id = 0"
        scores = [row[0] for row in self.ask(f"{best} order by s.score desc nulls last limit 100")]
        return self.ask(f"select count(*) from ({found}) f")[0][0], [score and score / 10_000 for score in scores]

    def bins(self, query: str) -> list[int]:
        """The numbers of 20 bins from the third one on; the last one includes 1."""
        found = dict(self.ask(query))
        numbers = [found.get(number, 0) for number in range(2, 21)]
        return [*numbers[:-2], numbers[-2] + numbers[-1]]

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(query.encode()).fetchall()

    def captions(self) -> int:
        number = 0
        query = (
            "select i.uri, c.caption from images i left join ("
            "select a.media_asset_id, string_agg(t.name, ', ' order by a.score desc, a.tag_id) as caption "
            f"from ai_tags a join tags t on t.id = a.tag_id where a.score >= {SCORE} group by 1"
            ") c on c.media_asset_id = i.id"
        )
        with (
            (self.place.folder / "captions.jsonl").open("w") as file,
            self.connection.transaction(),
            self.connection.cursor("captions") as cursor,
        ):
            cursor.itersize = 2_000
            for uri, caption in cursor.execute(query.encode()):
                file.write(json.dumps({"uri": uri, "caption": caption or ""}) + "\n")
                number += 1
        return number


class DuckDb:
    """A column store over one file, which must be rewritten for new images."""

    title = "DuckDB, Parquet"

    def __init__(self, place: Place) -> None:
        self.place = place
        self.remarks: dict[str, str] = {}
        self.file = place.folder / "scores.parquet"
        source = MADE.get("postgresql") or MADE.get("sqlite")
        if source is None:
            raise SystemExit("duckdb reads what tagonce exports: name postgresql or sqlite before it.")
        export(source, self.file, "parquet", "0.01")
        self.connection = duckdb.connect()
        self.connection.execute("set threads = 2")
        self.connection.execute(f"create view scores as select * from '{self.file}'")
        self.connection.execute("create table thresholds (tag varchar, threshold float)")
        self.connection.executemany(
            "insert into thresholds values (?, ?)", [(name, score / 10_000) for name, score in THRESHOLDS.items()]
        )

    def sizes(self) -> dict[str, int]:
        return {"scores and references": self.file.stat().st_size}

    def steps(self) -> Steps:
        at = f"probability >= {SCORE / 10_000}::float"
        yield COUNT, lambda: self.ask(f"select count(*), count(distinct image_id) from scores where {at}")[0]
        yield PER_TAG, lambda: dict(self.ask(f"select tag, count(*) from scores where {at} group by 1"))
        yield PER_TAG_OWN, lambda: dict(self.ask(
            "select s.tag, count(*) from scores s join thresholds t on t.tag = s.tag "
            "where s.probability >= t.threshold group by 1"
        ))  # fmt: skip
        yield (
            SEARCH,
            lambda: self.ask(
                "select count(*) from (select image_id from scores where tag = 'animal' and probability >= 0.5::float "
                "except select image_id from scores where tag = 'cat' and probability >= 0.2::float)"
            )[0][0],
        )
        rare = synthetic.names()[RARE]
        yield SEARCH_RARE, lambda: [row[0] for row in self.ask(
            f"select uri from scores where tag = '{rare}' and {at} order by 1"
        )]  # fmt: skip
        yield FIVE, self.five
        # Probabilities are floats, as the export writes them: half a score is added before they are cut.
        yield (
            HISTOGRAM,
            lambda: self.bins(
                "select cast(floor((probability * 10000 + 0.5) / 500) as integer), count(*) from scores "
                "where tag = 'animal' and probability >= 0.1::float group by 1"
            ),
        )
        between = "probability >= 0.35::float and probability < 0.4::float"
        yield CHANGES, lambda: self.ask(f"select count(distinct image_id), count(*) from scores where {between}")[0]
        yield CAPTIONS, self.captions

    def five(self) -> Any:
        having = "image_id {} (select image_id from scores where tag in ({}) and probability >= {}::float)"
        found = (
            "select image_id from scores where tag = 'tag_0004' and probability >= 0.15::float and "
            + having.format("in", "'animal', 'cat'", 0.3) + " and " + having.format("not in", "'dog', 'car'", 0.2)
        )  # fmt: skip
        scores = "(select * from scores where tag = 'animal')"
        best = f"select probability from ({found}) f left join {scores} s using (image_id)"
        rows = self.ask(f"{best} order by probability desc nulls last limit 100")
        return self.ask(f"select count(*) from ({found})")[0][0], [row[0] and round(row[0], 4) for row in rows]

    bins = Rows.bins

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(query).fetchall()

    def captions(self) -> int:
        """Captions of the images in the file, which has no images without a tag. Captions may be empty."""
        out = self.place.folder / "captions.jsonl"
        self.connection.execute(
            "copy (select uri, coalesce(string_agg(tag, ', ' order by probability desc) filter "
            f"(where probability >= {SCORE / 10_000}::float), '') as caption from scores group by image_id, uri) "
            f"to '{out}' (format json)"
        )
        with out.open("rb") as file:
            return sum(1 for _line in file)


INDEX = ("postings", "posting_blocks", "posting_counts", "low_scores")
"""Tables of `tagonce index`."""
STORES: dict[str, Callable[[Place], Any]] = {
    "postgresql": OnPostgreSQL,
    "sqlite": OnSqlite,
    "rows": Rows,
    "duckdb": DuckDb,
}
MADE: dict[str, Any] = {}


MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stderr=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
sys.exit(code)
"""
"""Run through a small process: the peak memory of a child includes that of its parent, which holds all the images."""


def export(store: Tagonce, out: Path, format_: str, threshold: str) -> None:
    """Run `tagonce export` in its own process, and note its peak memory."""
    command = [*services.TAGONCE, "export", "--format", format_, "-t", threshold]
    done = subprocess.run(
        [sys.executable, "-S", "-c", MEASURE, *command, "--out", out, "--database", store.url],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"The export of {out} failed.")
    store.remarks[f"memory of the export to {format_}"] = f"{int(done.stdout):,} MB"


OWN = "own"
"""A profile with a threshold for each tag."""
COMMANDS = {
    PER_TAG: ("counts", "-t", "0.35", "--json"),
    PER_TAG_OWN: ("counts", "-p", OWN, "--json"),
    "changes from 0.35 to 0.4": ("thresholds", "diff", "0.35", "0.4", "--json"),
    CAPTIONS: ("export", "--format", "jsonl", "-t", "0.35"),
}


def compare(commit: str, stores: list[Tagonce], server: services.Server) -> None:
    """Print the CPU seconds of the commands of two trees on the same stores."""
    table = Table("CPU seconds", commit, "this tree")
    with tree_of(commit) as other:
        for store in stores:
            with store.database.write() as connection:
                profiles.save(connection, store.model, OWN, Policy(tags=THRESHOLDS), source="bench")
            for question, command in COMMANDS.items():
                least: dict[Path, float] = {}
                for _round in range(3):
                    outputs = set()
                    for tree in (other, ROOT):
                        seconds, output = run_in(tree, (*command, "--database", store.url), server)
                        least[tree] = min(seconds, least.get(tree, seconds))
                        outputs.add(output)
                    if len(outputs) > 1:
                        raise SystemExit(f"{store.title}: {question}: the two trees print different answers.")
                table.add_row(f"{store.title}: {question}", *(f"{seconds:.2f}" for seconds in least.values()))
    Console(width=120).print(table)


def run_in(tree: Path, command: tuple[str, ...], server: services.Server) -> tuple[float, str]:
    """CPU seconds of a command of a tree and of the server, and a digest of what it prints."""
    # PYTHONPATH comes before an editable installation; -P keeps the current folder out.
    environment = os.environ | {"PYTHONPATH": str(tree)}
    begun = children_seconds() + services.cpu_seconds(server.process)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tagonce", *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    seconds = children_seconds() + services.cpu_seconds(server.process) - begun
    return seconds, hashlib.sha256(done.stdout).hexdigest()


def children_seconds() -> float:
    """CPU seconds of all ended children of this process."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Fill the stores, run the same queries on all of them, print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--stores", default=",".join(STORES))
    parser.add_argument("--before", help="a commit whose commands read the same stores")
    parser.add_argument("--folder", help="where there is room for them; default: /tmp", default="/tmp")
    options = parser.parse_args()
    answers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, services.postgresql(options.folder) as server:
        place = Place(Path(folder), server.url, list(synthetic.generate(options.images)))
        columns = [measure(name, place, answers) for name in options.stores.split(",")]
        _print(columns, place.number)
        if options.before:
            compare(options.before, [store for store in MADE.values() if isinstance(store, Tagonce)], server)


def _print(columns: list[Column], images: int) -> None:
    rows = list(dict.fromkeys(row for column in columns for row in column.cells))
    table = Table("", title=f"{images:,} images of {synthetic.TAGS:,} tags", title_justify="left")
    for column in columns:
        table.add_column(column.title, justify="right")
    for row in rows:
        table.add_row(row, *(column.cells.get(row, "") for column in columns))
    Console(width=160).print(table)


def measure(name: str, place: Place, answers: dict[str, Any]) -> Column:
    """Fill one store and run all queries."""
    begun = time.perf_counter()
    MADE[name] = store = STORES[name](place)
    column = Column(store.title, {"loaded": f"{place.number / (time.perf_counter() - begun):,.0f} images/s"})
    for what, size in store.sizes().items():
        column.cells[f"bytes an image: {what}"] = f"{size / place.number:,.0f}"
    for question, ask in store.steps():
        answer = ask()  # warm
        if answers.setdefault(question.removesuffix(INDEXED), answer) != answer:
            raise SystemExit(
                f"{store.title} gives another result for {question!r} than the stores before: {str(answer)[:200]}"
            )
        begun = time.perf_counter()
        ask()
        seconds = time.perf_counter() - begun
        shown = f"{seconds * 1000:,.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
        column.cells[question] = f"{shown} ({place.number / seconds:,.0f}/s)" if question == CAPTIONS else shown
        print(f"{store.title}: {question}: {column.cells[question]}", file=sys.stderr, flush=True)
    column.cells |= store.remarks
    return column


if __name__ == "__main__":
    main()
