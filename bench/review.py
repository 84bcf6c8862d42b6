"""What `tagonce review` takes to answer over a large collection, beside what the command line takes for the same.

    python bench/review.py [--images 1000000] [--database postgresql://...]

Synthetic images in PostgreSQL (`bench/synthetic.py`), one `tagonce review` and its pages over HTTP, as a browser asks
for them; pictures are not fetched. Every question is asked once to warm up, and then with another threshold each time:
the median and the longest are printed, and the medians of the bytes of an answer and of its SQL statements. A "move" is
what the script asks for when a slider is moved, the other rows are whole pages. Needs `pip install --group bench`.
"""

import argparse
import http.client
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote, urlsplit

import psutil
import psycopg
import services
import synthetic
from rich.console import Console
from rich.table import Table

from db.database import open_database
from db.postings.build import drop_postings, update_postings

CATEGORIES = ("general", "general", "general", "character", "species", "meta")
COMMON, MIDDLE, RARE = "animal", "tag_0300", "tag_9000"
TIMES = 12
COUNTING = b"Counting the collection"
COUNTED = """
import os
from sqlalchemy import Engine, event
from tagonce.cli import main

file = os.open(os.environ["STATEMENTS"], os.O_WRONLY | os.O_APPEND)
event.listen(Engine, "before_cursor_execute", lambda *_: os.write(file, b"."))
main()
"""
"""`tagonce` that adds a byte to a file for each SQL statement."""


@dataclass
class Row:
    """One question."""

    question: str
    page: str
    answer: str = ""
    statements: str = ""
    command: str = ""
    seconds: str = ""


@dataclass(frozen=True)
class Answers:
    """To the same question, asked several times."""

    seconds: list[float]
    sizes: list[int]
    """Bytes."""
    statements: list[int]

    @property
    def time(self) -> str:
        return f"{shown(statistics.median(self.seconds))}, {shown(max(self.seconds))}"


@dataclass
class Bench:
    """One collection, and what was measured of it."""

    url: str
    environment: dict[str, str]
    rows: list[Row] = field(default_factory=list)

    def tell(self, question: str, page: str | Answers, command: str = "") -> None:
        """Keep a row, with the command timed."""
        row = Row(question, page) if isinstance(page, str) else Row(question, page.time)
        if isinstance(page, Answers):
            row.answer = f"{statistics.median(page.sizes) / 1000:,.1f} kB"
            row.statements = f"{statistics.median(page.statements):.0f}"
        if command:
            row.command, row.seconds = f"tagonce {command}", self.command(command)
        self.rows.append(row)
        print(*(str(value) for value in vars(row).values() if value), sep="  ", file=sys.stderr, flush=True)

    def command(self, arguments: str) -> str:
        """The whole of a command, a process of its own."""
        begun = time.perf_counter()
        subprocess.run(
            [*services.TAGONCE, *arguments.split(), "--database", self.url],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        return shown(time.perf_counter() - begun)


class Page:
    """A running `tagonce review`.

    Args:
        begun: when it was started.
        statements: a file that has a byte for each SQL statement.
    """

    def __init__(self, process: subprocess.Popen[str], begun: float, statements: Path) -> None:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        self.process = psutil.Process(process.pid)
        self.address = next(line for line in process.stdout if line.startswith("Open ")).split()[1]
        self.ready_seconds = time.perf_counter() - begun
        self._statements = statements
        self._connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=120)

    def get(self, address: str, headers: Mapping[str, str] = MappingProxyType({})) -> bytes:
        """A page; anything but 200 ends the run."""
        self._connection.request("GET", address, headers=dict(headers))
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise SystemExit(f"{address} answers {answer.status}: {body[-300:].decode()}")
        return body

    def seconds(self, address: str) -> float:
        begun = time.perf_counter()
        self.get(address)
        return time.perf_counter() - begun

    def recount(self) -> None:
        """As the button does."""
        self._connection.request("POST", "/recount", "", {"Origin": self.address.rstrip("/")})
        self._connection.getresponse().read()

    def ask(self, address: Callable[[str], str], *, moves: bool = False) -> Answers:
        """Many times, with a threshold that it was not asked with before.

        Args:
            moves: as the script asks, which sends what it shows already (`tagonce/web/pages/gallery.py`).
        """
        # The server ends a connection that nobody used for seconds.
        self._connection.close()
        answers, before = Answers([], [], []), address("0.35" if moves else "0.9")
        body = self.get(before)
        for number in range(TIMES):
            headers, after = {}, address(f"{0.36 + 0.01 * number:.2f}")
            if moves:
                cards = " ".join(re.findall(r'data-digest="(\w+)"', body.decode()))
                headers = {"X-Cards": cards, "Referer": self.address.rstrip("/") + before}
            statements, begun = self._statements.stat().st_size, time.perf_counter()
            body, before = self.get(after, headers), after
            answers.seconds.append(time.perf_counter() - begun)
            answers.sizes.append(len(body))
            answers.statements.append(self._statements.stat().st_size - statements)
        return answers


def shown(seconds: float) -> str:
    """In words."""
    return f"{seconds * 1000:,.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


@contextmanager
def review(bench: Bench) -> Iterator[Page]:
    """Start it on a free port; it ends with the block."""
    with tempfile.NamedTemporaryFile() as statements:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", COUNTED, "review", "--port", "0", "--database", bench.url],
            env=bench.environment | {"STATEMENTS": statements.name},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield Page(process, begun, Path(statements.name))
        finally:
            process.terminate()
            process.wait()


def starts(bench: Bench, images: int) -> None:
    """The first time, and again with what was counted then."""
    with review(bench) as page:
        first = page.seconds("/")
        bench.tell("from the command to the address, first time", shown(page.ready_seconds))
        bench.tell("the first page, while it is counting", shown(first))
        bench.tell("a slider, while it is counting", page.ask(lambda t: f"/?t={t}").time)
        wait_until_counted(page)
        begun = time.perf_counter()
        page.recount()
        wait_until_counted(page)
        seconds = time.perf_counter() - begun
        bench.tell("counting the collection", f"{shown(seconds)}, {images / seconds:,.0f} images/s")
    with review(bench) as page:
        bench.tell("from the command to the address, again", shown(page.ready_seconds))
        bench.tell("the first page, again", shown(page.seconds("/")))
        bench.tell("a slider then", page.ask(lambda t: f"/?t={t}"))


def wait_until_counted(page: Page) -> None:
    while COUNTING in page.get("/tags?find=animal"):
        time.sleep(0.2)


def pages(bench: Bench) -> None:
    """Every page, once all is counted."""
    with review(bench) as page:
        wait_until_counted(page)
        tell = bench.tell
        tell("the page", page.ask(lambda t: f"/?seed={t[2:]}"))
        tell("the slider of all tags", page.ask(lambda t: f"/?t={t}"), "thresholds diff 0.35 0.42")
        tell("a move of it", page.ask(lambda t: f"/?t={t}", moves=True))
        tell("a move of it, 96 pictures", page.ask(lambda t: f"/?t={t}&size=96", moves=True))
        tell("the slider of a category", page.ask(lambda t: f"/?c.character={t}"))
        tell("a move of it", page.ask(lambda t: f"/?c.character={t}", moves=True))
        tell("both, which is estimated", page.ask(lambda t: f"/?t={t}&c.character=0.8"))
        tell("other pictures: diverse", page.ask(lambda t: f"/?sample=diverse&seed={t[2:]}"))
        tell("other pictures: nearest to the thresholds", page.ask(lambda t: f"/?sample=nearest&t={t}"))
        search = "animal:{} -cat:0.2"
        tell(
            "other pictures: a search",
            page.ask(lambda t: f"/?q={quote(search.format(t))}&seed={t[2:]}"),
            "search animal:0.5 --limit 24",
        )
        for name in (COMMON, MIDDLE, RARE):
            tell(f"the page of a tag, {name}", page.ask(of_tag(name)), f"histogram {name}")
        for name in (COMMON, RARE):
            tell(f"random pictures to judge, {name}", page.ask(lambda t, name=name: of_tag(name)(t) + "&show=above"))
        tell("all tags", page.ask(lambda t: f"/tags?t={t}"), "counts --threshold 0.42")
        tell("compare", page.ask(lambda t: f"/compare?t={t}"), "thresholds diff 0.35 0.42")
        tell("overview", page.ask(lambda t: f"/overview?t={t}"), "status")
        tell("one picture", page.ask(lambda t: f"/image/{t[2:]}"))
        with indexed(bench):
            for name in (COMMON, MIDDLE, RARE):
                tell(f"the page of a tag, {name}, indexed", page.ask(of_tag(name)))
            tell("other pictures: a search, indexed", page.ask(lambda t: f"/?q={quote(search.format(t))}&seed={t[2:]}"))
        tell("memory", f"{page.process.memory_info().rss / 2**20:,.0f} MB")


def of_tag(name: str) -> Callable[[str], str]:
    """The address of its page by threshold."""
    return lambda threshold: f"/tag/{synthetic.names().index(name)}?tag.{name}={threshold}"


@contextmanager
def indexed(bench: Bench) -> Iterator[None]:
    """With `tagonce index`; it is gone afterwards."""
    database = open_database(bench.url)
    model = synthetic.register(database, CATEGORIES)
    update_postings(database, model)
    try:
        yield
    finally:
        drop_postings(database, model)
        database.close()


def filled(server: str, images: int) -> str:
    """The URL of a new database with so many images."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("create database review")
    url = server.replace("/postgres?", "/review?")
    database = open_database(url)
    synthetic.fill_postgresql(url, synthetic.register(database, CATEGORIES), list(synthetic.generate(images)))
    database.close()
    return url


def main() -> None:
    """Fill a database, start the page, ask, print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--database", help="one that `filled` made before, with so many images")
    parser.add_argument("--folder", help="where there is room; default: /tmp", default="/tmp")
    options = parser.parse_args()
    with ExitStack() as stack:
        cache = stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder))
        url = options.database or filled(stack.enter_context(services.postgresql(options.folder)).url, options.images)
        bench = Bench(url, os.environ | {"XDG_CACHE_HOME": cache})
        starts(bench, options.images)
        pages(bench)
    table = Table("", title=f"{options.images:,} images of {synthetic.TAGS:,} tags", title_justify="left")
    for title in ("median, longest", "answer", "SQL statements", "on the command line", "takes"):
        table.add_column(title, justify="left" if title.startswith("on") else "right")
    for row in bench.rows:
        table.add_row(*vars(row).values())
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
