"""Names of files, tags, categories, profiles and people as strangers choose them, and files that are broken: nothing
runs, nothing breaks out of its place, and the page stays usable.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select

from db.database import Database
from db.errors import Reason
from db.ledger import images, models, results
from db.ledger.images import Reference
from db.ledger.models import Tag
from db.ledger.results import Failure, Prediction
from db.names.uris import file_uri
from db.policy import profiles
from db.policy.policies import Policy
from db.schema import images as image_table
from db.scores import Scores
from db.truth import labels
from db.truth.labels import Drawn
from tests.fixtures import hostile
from tests.fixtures.browser import WIDTHS, Browsing
from tests.fixtures.command import script
from tests.fixtures.review import Review, as_shown, settle, shown, sticking_out

FLOOR = 100
SLASH = "\u2044"
"""What looks like one and may stand in the name of a file."""
MARKUP = (
    "<script>window.hit=1</script>",
    '"><img src=x onerror=window.hit=1>',
    "' onmouseover='window.hit=1' x='",
    '" autofocus onfocus="window.hit=1" x="',
    "</title></style></textarea><svg onload=window.hit=1>",
    "javascript:window.hit=1",
    "{{ 7 * 7 }}{% raw %}${7*7}",
    "&lt;b&gt;&amp;&#39;&quot;",
    "$(touch pwned)`touch pwned`;touch pwned;'\"; touch pwned #",
    "a=b&c=d?e#f%20%00+g",
)
TEXTS = (
    *MARKUP,
    "\u202egnp.evil\u2066\u200f",
    "漢字 ひらがな 🐈‍⬛",
    "Z̷̛̳a̵͎͝l̶͕͌g̷̝̈o̸̥͒",
    "x" * 400,
    "-rf",
    "off",
    "cat:0.5 ~ -dog (",
    "  two  spaces  ",
    "new\nline\tand \x1b[31mred",
)
TELLING = (*MARKUP[2:4], *MARKUP[8:10], *TEXTS[10:11], *TEXTS[13:14], *TEXTS[15:])
"""Those that differ most in what they could break: attributes, shells, addresses, directions, widths and searches."""
TAGS = (*(Tag(text, f"category {text}"[:200]) for text in TEXTS), Tag("plain", None), Tag("rare", "x"))
FILES = (
    *(text.replace("/", SLASH).encode()[:240] + b".png" for text in TEXTS),
    b"latin \xe9\xff\xfe\x80.png",
    "é".encode() * 125 + b"x.png",
    b"y" * 251 + b".png",
)
"""Names: some of 255 bytes, which is as many as a file system takes, and some that are no text."""


def written(folder: Path) -> list[str]:
    """The uris of whole pictures of hostile names, in a folder that has one, too."""
    place = folder / MARKUP[1]
    place.mkdir()
    for number, name in enumerate(FILES):
        data = hostile.saved(hostile.picture(seed=number, size=(60, 40)), "png")
        (place / os.fsdecode(name)).write_bytes(data)
    return [file_uri(str(place / os.fsdecode(name))) for name in FILES]


def broken(folder: Path) -> list[str]:
    """The uris of what was a picture once."""
    contents = {
        "cut.png": hostile.saved(hostile.picture(size=(600, 400)), "png")[:500],
        "empty.png": b"",
        "page.png": b"<!doctype html><script>window.hit=1</script>",
        "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg" onload="window.hit=1"><script>1</script></svg>',
        **{f"claims-{name}": data for name, data in hostile.claims().items()},
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder.png").mkdir()
    (folder / "secret.png").symlink_to("/etc/passwd")
    os.mkfifo(folder / "fifo.png")
    names = [*contents, "folder.png", "secret.png", "fifo.png", "gone.png"]
    return [
        *(file_uri(str(folder / name)) for name in names),
        "no-scheme",
        "ftp://a/b.png",
        "file:///",
        "s3://",
        "file://",
    ]


@pytest.fixture
def review(database: Database, database_url: str, tmp_path: Path, start_review: Callable[..., Review]) -> Review:
    """The page over all of it."""
    store(database, [*written(tmp_path), *broken(tmp_path)])
    return start_review(database_url, "--reviewer", MARKUP[1], TAGONCE_ROOTS=str(tmp_path))


@pytest.fixture
def small_review(database: Database, database_url: str, tmp_path: Path, start_review: Callable[..., Review]) -> Review:
    """The page over all tags and eight of the pictures: a page of many cards takes Chromium a second."""
    store(database, written(tmp_path)[:8])
    return start_review(database_url, "--reviewer", MARKUP[1], TAGONCE_ROOTS=str(tmp_path))


def store(database: Database, uris: list[str]) -> None:
    """Random scores of all tags for the images, failures, profiles and a label."""
    rng = np.random.default_rng(1)
    with database.write() as connection:
        model = models.register(
            connection,
            name=MARKUP[1],
            weights_sha256="0" * 64,
            spec={},
            tag_list=TAGS,
            floor=FLOOR,
            default_threshold=3_500,
        )
        images.register(connection, [Reference(uri, "1", 10) for uri in uris], model.id)
        rows = {row.uri: row for row in connection.execute(select(image_table))}
        done, failed = [], []
        for uri in uris:
            row, values = rows[uri], np.sort(rng.integers(FLOOR, 10_001, len(TAGS), dtype=np.int16))
            scores = Scores(rng.permutation(len(TAGS)).astype(np.int16), values)
            done.append(Prediction(row.id, row.version, 1, 60, 40, "png", os.urandom(32), scores))
        for uri in [f"s3://bucket/{text}" for text in MARKUP]:
            images.register(connection, [Reference(uri, "1", 10)], model.id)
        for row in connection.execute(select(image_table).where(image_table.c.uri.startswith("s3://bucket/"))):
            failed += [Failure(row.id, row.version, Reason.CORRUPT, f"detail {row.uri}")]
        results.save(connection, model.id, done, failed)
        for text in MARKUP[:4]:
            profiles.save(connection, model, text.replace("@", ""), Policy(tags={TEXTS[0]: 5_000}), source=text)
        labels.save(connection, model, done[0].image_id, 0, True, by=MARKUP[0], drawn=Drawn.RANDOM)


ODD = """root => [...root.querySelectorAll("*")].filter(one =>
    [...one.attributes].some(each => each.name.startsWith("on") || each.name === "autofocus")
    || /^(javascript|data|http):/i.test(one.getAttribute("href") ?? one.getAttribute("src") ?? "")
    || one.matches("script:not([src='/static/review.js']), style, iframe, object, embed, base, svg svg")
    || one.matches("img:not([src^='/thumb/'], [src^='/preview/'])")
).map(one => one.outerHTML.slice(0, 200)).concat(
    root.querySelector("main") && root.querySelector("footer") ? [] : ["no main, or no footer"])"""
"""A function in JavaScript: elements that a name could have made, and what a name has broken."""


def harmless(page: Page) -> None:
    """Nothing of it became an element, an attribute or a script."""
    page.wait_for_load_state("load")
    assert page.evaluate("window.hit") is None
    assert page.evaluate(f"({ODD})(document)") == []


def parsed(page: Page, paths: list[str]) -> dict[str, Any]:
    """The status of each page, and what is odd in it, by the browser's own parser. To show all takes it a minute."""
    found: dict[str, Any] = page.evaluate(
        f"""async paths => Object.fromEntries(await Promise.all(paths.map(async path => {{
            const answer = await fetch(path);
            const root = new DOMParser().parseFromString(await answer.text(), "text/html");
            return [path, [answer.status, ({ODD})(root)]];
        }})))""",
        paths,
    )
    return found


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_every_page_renders_what_strangers_wrote_as_text(
    review: Review, browsing: Browsing, pytestconfig: pytest.Config
) -> None:
    """Also narrow, where the longest name must not push anything out of the window."""
    review.wait_until_counted()
    page = browsing.page(WIDTHS[1])
    paths = ["/?t=0.3&size=96", "/?size=96&sample=nearest", "/tags", "/compare?t=0.2", "/overview", "/try"]
    tags = {tag.name: f"/tag/{number}?t=0.5" for number, tag in enumerate(TAGS)}
    with review.reading() as (connection, _, _):
        ids = [row.id for row in connection.execute(select(image_table.c.id).order_by(image_table.c.id))]
    pictures = [f"/image/{one}" for one in ids[: len(FILES) + 25]]
    every = [*paths, *tags.values(), *pictures]
    shown_ones = [*paths, *(tags[name] for name in TELLING), *pictures[len(FILES) - 5 : len(FILES) + 1]]
    for path in every if pytestconfig.getoption("thorough") else shown_ones:
        answer = page.goto(review.address + path)
        assert answer
        assert answer.status == 200, (path, page.inner_text("main"))
        harmless(page)
        wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide[0] <= wide[1], (path, sticking_out(page))
    assert parsed(page, every) == {path: [200, []] for path in every}
    page.goto(review.url("/", **{"tag." + TEXTS[0]: "0.5", "c.category " + MARKUP[1]: "0.4", "profile": MARKUP[1]}))
    harmless(page)
    page.goto(review.url("/tags", find=MARKUP[1]))
    harmless(page)
    browsing.allow("400.*q=")
    page.goto(review.url("/", q=MARKUP[1]))
    harmless(page)
    page.goto(review.url("/", t="0.3", size=96))
    browsing.keep(page, "hostile")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_names_of_tags_arrive_as_they_are(review: Review, browser_page: Page) -> None:
    """But for characters that would command the page's direction or a terminal."""
    browser_page.goto(review.url("/", t="0.01", size=96))
    expected = {"".join(one if one.isprintable() or one == "\n" else "?" for one in tag.name) for tag in TAGS}
    found = {tag for tags in shown(browser_page).values() for tag in tags}
    assert found == expected
    assert browser_page.locator(".card").count() == review.compared(Policy(), Policy()).images


def test_broken_files_have_a_picture_that_says_so(review: Review, browser_page: Page) -> None:
    """And whole ones of hostile names have their own. What comes is made here: never a byte of the file."""
    browser_page.goto(review.url("/", size=96))
    browser_page.evaluate("document.querySelectorAll('img').forEach(one => one.loading = 'eager')")
    browser_page.wait_for_function("() => [...document.images].every(one => one.complete && one.naturalWidth > 0)")
    with review.reading() as (connection, _, _):
        rows = connection.execute(select(image_table.c.id, image_table.c.uri).order_by(image_table.c.id)).all()
    kinds = {}
    for row in rows[: len(FILES) + 25]:
        for place in ("thumb", "preview"):
            answer = review.ask(f"/{place}/{row.id}")
            assert answer.status == 200
            assert b"window.hit" not in answer.body
            assert b"root:" not in answer.body
            kinds[row.uri] = answer.headers["content-type"]
            assert answer.headers["content-type"] in ("image/webp", "image/svg+xml")
    whole = [uri for uri, kind in kinds.items() if kind == "image/webp"]
    assert len(whole) == len(FILES)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_hostile_tags_are_moved_judged_and_exported_as_others_are(
    small_review: Review, browser_page: Page, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """The command line, given to a shell as it stands, does what it says and nothing else."""
    review, page = small_review, browser_page
    for name in TEXTS if pytestconfig.getoption("thorough") else TELLING:
        number = TEXTS.index(name)
        page.goto(review.url(f"/tag/{number}"))
        page.get_by_label("threshold, slider").fill("0.7")
        settle(page)
        page.locator("h1").click()
        page.keyboard.press("j")
        page.keyboard.press("y")
        expect(page.locator(".right[aria-pressed=true]").first).to_be_visible()
        with review.reading() as (connection, model, _):
            assert len(labels.of_tag(connection, model, number)) >= 1, name
        page.get_by_role("link", name="Gallery").click()
        page.wait_for_url("**/?tag.**")
        expected = sorted(map(len, as_shown(review.kept(Policy(tags={name: 7_000}))).values()))
        assert sorted(map(len, shown(page).values())) == expected, name
    page.goto(review.url("/", **{"tag." + name: "0.7" for name in TEXTS}))
    assert exported(page, tmp_path) == review.compared(Policy(), Policy()).images
    assert not list(tmp_path.rglob("pwned"))


def exported(page: Page, folder: Path) -> int:
    """Images that the command line on the page writes."""
    command = page.locator(".command [data-copy]").first.get_attribute("data-copy") or ""
    file = folder / "tags.jsonl"
    file.unlink(missing_ok=True)
    assert command.startswith("tagonce export --out captions --overwrite ")
    said = command.replace("tagonce", shlex.quote(script()), 1)
    said = said.replace("--out captions --overwrite", "--format jsonl --out tags.jsonl", 1)
    done = subprocess.run(["sh", "-c", said], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (said, done.stderr)
    return len(file.read_text().splitlines())


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_profile_of_a_hostile_name_is_saved_and_chosen(
    small_review: Review, browser_page: Page, pytestconfig: pytest.Config
) -> None:
    review, page = small_review, browser_page
    for number, name in enumerate(MARKUP if pytestconfig.getoption("thorough") else TELLING[:4]):
        page.goto(review.url("/compare", **{"tag." + name: f"0.{number + 10}"}))
        page.get_by_label("save as").fill(f"{name} by eye")
        page.get_by_role("button", name="Save profile").click()
        page.wait_for_url(re.compile(r"/(\?profile=|save)"))
        assert "/save" not in page.url, page.inner_text("main")
        harmless(page)
        label = page.locator("[name=profile]").input_value()
        assert label == f"{name} by eye@1"
        with review.reading() as (connection, model, _):
            assert profiles.find(connection, model, label).policy == Policy(tags={name: 100 * (number + 10)})


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_name_of_a_person_is_text(small_review: Review, browser_page: Page, pytestconfig: pytest.Config) -> None:
    browser_page.goto(small_review.url("/"))
    assert browser_page.get_by_label("judging as").input_value() == MARKUP[1]
    for name in (*(MARKUP if pytestconfig.getoption("thorough") else TELLING[:4]), "漢字 🐈"):
        browser_page.get_by_label("judging as").fill(name)
        browser_page.get_by_role("button", name="Set").click()
        browser_page.wait_for_load_state("load")
        assert browser_page.get_by_label("judging as").input_value() == name
        harmless(browser_page)
