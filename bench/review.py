"""What `tagonce review` takes to answer over a large collection, beside what the command line takes for the same.

    python bench/review.py [--images 1000000] [--database postgresql://...]

Synthetic images in PostgreSQL (`bench/synthetic.py`), one `tagonce review` and its pages over HTTP, as a browser asks
for them; pictures are not fetched. Every question is asked once to warm up, and then with another threshold each time:
the median and the longest are printed. Needs `pip install --group bench`.
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
    """One question."""

    question: str
    page: str
    command: str = ""
    seconds: str = ""


@dataclass
class Bench:
    """One collection, and what was measured of it."""

    url: str
    environment: dict[str, str]
    rows: list[Row] = field(default_factory=list)

    def tell(self, question: str, page: str, command: str = "") -> None:
        """Keep a row, with the command timed."""
        row = Row(question, page, f"tagonce {command}" if command else "", self.command(command) if command else "")
        self.rows.append(row)
        print(f"{row.question}: {row.page}  {row.command} {row.seconds}", file=sys.stderr, flush=True)

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
    """

    def __init__(self, process: subprocess.Popen[str], begun: float) -> None:
        assert process.stdout is not None  # noqa: S101 - it was asked for
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
        """Many times, with a threshold that it was not asked with before."""
        # The server ends a connection that nobody used for seconds.
        self._connection.close()
        self.seconds(address("0.9"))
        taken = [self.seconds(address(f"{first + 0.01 * number:.2f}")) for number in range(TIMES)]
        return f"{shown(statistics.median(taken))}, {shown(max(taken))}"


def shown(seconds: float) -> str:
    """In words."""
    return f"{seconds * 1000:,.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


@contextmanager
def review(bench: Bench) -> Iterator[Page]:
    """Start it on a free port; it ends with the block."""
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
    """The first time, and again with what was counted then."""
    with review(bench) as page:
        first = page.seconds("/")
        bench.tell("from the command to the address, first time", shown(page.ready_seconds))
        bench.tell("the first page, while it is counting", shown(first))
        bench.tell("a slider, while it is counting", page.ask(lambda t: f"/?t={t}"))
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
        tell("the slider of a category", page.ask(lambda t: f"/?c.character={t}"))
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
    tag_index.create(database, model, INDEXED_FROM)
    try:
        yield
    finally:
        tag_index.drop(database, model)
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
    for title in ("median, longest", "on the command line", "takes"):
        table.add_column(title, justify="left" if title.startswith("on") else "right")
    for row in bench.rows:
        table.add_row(row.question, row.page, row.command, row.seconds)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
