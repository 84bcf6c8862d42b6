"""The browser of the tests notices what a page does and may not do."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.fixtures.browser import SCREENSHOTS, Browsing


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_words: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which its files are served on loopback."""
    (tmp_path / "index.html").write_text("<!doctype html><link rel=icon href=data:,><title>t</title><h1>Hello</h1>")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever).start()
        yield tmp_path, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_page_on_loopback_is_shown_with_text(browser_page: Page, served: tuple[Path, str]) -> None:
    """A browser without fonts would give it no width."""
    browser_page.goto(served[1])
    assert browser_page.inner_text("h1") == "Hello"
    assert browser_page.evaluate("document.createElement('canvas').getContext('2d').measureText('Hello').width") > 10


@pytest.mark.parametrize(
    ("script", "noticed"),
    [
        ("console.error('oh')", "console: oh"),
        ("throw new Error('broken')", "error: broken"),
        ("fetch('http://elsewhere.example/x').catch(() => 0)", "request: http://elsewhere.example/x"),
        ("new Image().src = '//198.51.100.1/x.png'", "request: http://198.51.100.1/x.png"),
        ("fetch('/none')", "console: Failed to load resource"),
        ("alert('run')", "alert: run"),
    ],
)
def test_what_no_page_may_do_is_noticed(
    browsing: Browsing, served: tuple[Path, str], script: str, noticed: str
) -> None:
    folder, address = served
    (folder / "bad.html").write_text(f"<!doctype html><link rel=icon href=data:,><script>{script}</script>")
    page = browsing.page()
    page.goto(f"{address}/bad.html")
    page.wait_for_load_state("networkidle")
    wrong = browsing.close()
    assert any(noticed in each for each in wrong), wrong
    browsing.allow("")


def test_what_a_test_expects_is_allowed(browsing: Browsing, served: tuple[Path, str]) -> None:
    browsing.allow("404.*/none")
    page = browsing.page()
    page.goto(served[1])
    assert page.evaluate("fetch('/none').then(answer => answer.status)") == 404


@pytest.mark.long
def test_screenshots_are_kept(browsing: Browsing, served: tuple[Path, str]) -> None:
    """Four of each view."""
    page = browsing.page(600)
    page.goto(served[1])
    browsing.keep(page, "fixture")
    assert page.viewport_size == {"width": 600, "height": 800}
    assert len(list(SCREENSHOTS.glob("fixture-*.png"))) == 4
