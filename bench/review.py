"""Response times of `tagonce review` on a large collection, and of the command line for the same questions.

    python bench/review.py [--images 1000000] [--database postgresql://...]

Synthetic images in PostgreSQL (`bench/synthetic.py`), one `tagonce review`, and requests over HTTP as of a browser,
without pictures. Every page is requested once to warm up, and then with another threshold each time; median and longest
time are printed. Needs `pip install --group bench`.
"""

import argparse
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

import psutil
import psycopg
import services
import synthetic
from rich.console import Console
from rich.table import Table

from db.database import open_database
from db.search import tag_index

CATEGORIES = ("general", "general", "general", "character", "species", "meta")
COMMON, MIDDLE, RARE = "animal", "tag_0300", "tag_9000"
TIMES = 12
COUNTING = b"Counting the collection"
INDEXED_FROM = 3_500


@dataclass
class Row:
    """One row of the table."""

    question: str
    page: str
    command: str = ""
    seconds: str = ""


@dataclass
class Bench:
    """One collection, and its measurements."""

    url: str
    environment: dict[str, str]
    rows: list[Row] = field(default_factory=list)

    def add(self, question: str, page: str, command: str = "") -> None:
        """Add a row, and time its command."""
        row = Row(question, page, f"tagonce {command}" if command else "", self.command(command) if command else "")
        self.rows.append(row)
        print(f"{row.question}: {row.page}  {row.command} {row.seconds}", file=sys.stderr, flush=True)

    def command(self, arguments: str) -> str:
        """Time of a whole command in its own process."""
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
    """

    def __init__(self, process: subprocess.Popen[str], begun: float) -> None:
        assert process.stdout is not None  # noqa: S101 - Popen was given a pipe
        self.process = psutil.Process(process.pid)
        self.address = next(line for line in process.stdout if line.startswith("Open ")).split()[1]
        self.ready_seconds = time.perf_counter() - begun
        self._connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=120)

    def get(self, address: str) -> bytes:
        """A page; anything but 200 ends the run."""
        self._connection.request("GET", address)
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

    def ask(self, address: Callable[[str], str], first: float = 0.36) -> str:
        """Median and longest time of many requests, each with a new threshold."""
        # The server closes a connection that is idle for some seconds.
        self._connection.close()
        self.seconds(address("0.9"))
        taken = [self.seconds(address(f"{first + 0.01 * number:.2f}")) for number in range(TIMES)]
        return f"{shown(statistics.median(taken))}, {shown(max(taken))}"


def shown(seconds: float) -> str:
    """The time as text."""
    return f"{seconds * 1000:,.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


@contextmanager
def review(bench: Bench) -> Iterator[Page]:
    """Run `tagonce review` on a free port during the block."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [*services.TAGONCE, "review", "--port", "0", "--database", bench.url],
        env=bench.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Page(process, begun)
    finally:
        process.terminate()
        process.wait()


def starts(bench: Bench, images: int) -> None:
    """Measure the first start, and a second start with the stored counts."""
    with review(bench) as page:
        first = page.seconds("/")
        bench.add("from the command to the address, first time", shown(page.ready_seconds))
        bench.add("the first page, while it is counting", shown(first))
        bench.add("a slider, while it is counting", page.ask(lambda t: f"/?t={t}"))
        wait_until_counted(page)
        begun = time.perf_counter()
        page.recount()
        wait_until_counted(page)
        seconds = time.perf_counter() - begun
        bench.add("counting the collection", f"{shown(seconds)}, {images / seconds:,.0f} images/s")
    with review(bench) as page:
        bench.add("from the command to the address, again", shown(page.ready_seconds))
        bench.add("the first page, again", shown(page.seconds("/")))
        bench.add("a slider then", page.ask(lambda t: f"/?t={t}"))


def wait_until_counted(page: Page) -> None:
    while COUNTING in page.get("/tags?find=animal"):
        time.sleep(0.2)


def pages(bench: Bench) -> None:
    """Measure every page when the collection is counted."""
    with review(bench) as page:
        wait_until_counted(page)
        add = bench.add
        add("the page", page.ask(lambda t: f"/?seed={t[2:]}"))
        add("the slider of all tags", page.ask(lambda t: f"/?t={t}"), "thresholds diff 0.35 0.42")
        add("the slider of a category", page.ask(lambda t: f"/?c.character={t}"))
        add("both, which is estimated", page.ask(lambda t: f"/?t={t}&c.character=0.8"))
        add("other pictures: diverse", page.ask(lambda t: f"/?sample=diverse&seed={t[2:]}"))
        add("other pictures: nearest to the thresholds", page.ask(lambda t: f"/?sample=nearest&t={t}"))
        search = "animal:{} -cat:0.2"
        add(
            "other pictures: a search",
            page.ask(lambda t: f"/?q={quote(search.format(t))}&seed={t[2:]}"),
            "search animal:0.5 --limit 24",
        )
        for name in (COMMON, MIDDLE, RARE):
            add(f"the page of a tag, {name}", page.ask(of_tag(name)), f"histogram {name}")
        for name in (COMMON, RARE):
            add(f"random pictures to judge, {name}", page.ask(lambda t, name=name: of_tag(name)(t) + "&show=above"))
        add("all tags", page.ask(lambda t: f"/tags?t={t}"), "counts --threshold 0.42")
        add("compare", page.ask(lambda t: f"/compare?t={t}"), "thresholds diff 0.35 0.42")
        add("overview", page.ask(lambda t: f"/overview?t={t}"), "status")
        add("one picture", page.ask(lambda t: f"/image/{t[2:]}"))
        with indexed(bench):
            for name in (COMMON, MIDDLE, RARE):
                add(f"the page of a tag, {name}, indexed", page.ask(of_tag(name)))
            add("other pictures: a search, indexed", page.ask(lambda t: f"/?q={quote(search.format(t))}&seed={t[2:]}"))
        add("memory", f"{page.process.memory_info().rss / 2**20:,.0f} MB")


def of_tag(name: str) -> Callable[[str], str]:
    """The address of its page by threshold."""
    return lambda threshold: f"/tag/{synthetic.names().index(name)}?tag.{name}={threshold}"


@contextmanager
def indexed(bench: Bench) -> Iterator[None]:
    """Create the index of `tagonce index`; drop it after the block."""
    database = open_database(bench.url)
    model = synthetic.register(database, CATEGORIES)
    tag_index.create(database, model, INDEXED_FROM)
    try:
        yield
    finally:
        tag_index.drop(database, model)
        database.close()


def filled(server: str, images: int) -> str:
    """Create a database with so many images; returns its URL."""
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
    for title in ("median, longest", "on the command line", "takes"):
        table.add_column(title, justify="left" if title.startswith("on") else "right")
    for row in bench.rows:
        table.add_row(row.question, row.page, row.command, row.seconds)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
