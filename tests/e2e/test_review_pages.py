"""Overview, trying a picture, and what holds for every page: width, contrast, keyboard, what it may load."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from db.policy.policies import Policy
from tests.fixtures.browser import WIDTHS, Browsing
from tests.fixtures.review import Review, settle, shown, sticking_out

PAGES = (
    "/?t=0.2",
    "/?t=0.9&sample=nearest&size=12&c.leaf=0.5&tag.cat=0.1",
    "/?sample=search&q=cat",
    "/?sample=search&q=zebra%3A1",
    "/tags",
    "/tags?find=nothing+like+it",
    "/tag/1048?t=0.3",
    "/image/3?t=0.1",
    "/compare?t=0.2",
    "/try",
    "/overview",
    "/image/999999",
)
LOOKS = ("light", "dark")

CONTRASTS = """() => {
    const parsed = text => {
        const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
        return text.startsWith("color(") ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
    };
    const over = ([r, g, b, a], below) => [r, g, b].map((one, at) => one * a + below[at] * (1 - a));
    const ground = element => {
        if (!element) return matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
        const own = parsed(getComputedStyle(element).backgroundColor);
        return own[3] === 1 ? own.slice(0, 3) : over(own, ground(element.parentElement));
    };
    const luminance = colour => {
        const [r, g, b] = colour.map(one => one / 255).map(
            one => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [];
    for (const element of document.querySelectorAll("body *")) {
        const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
        const field = element.matches("input:not([type=hidden], [type=range], [type=radio], [type=file])");
        if (!own && !field || element.matches("option, datalist *, noscript, title, :disabled")) continue;
        if (!element.checkVisibility({visibilityProperty: true})) continue;
        const style = getComputedStyle(element);
        const below = ground(element);
        const ink = over(parsed(element.closest("svg") ? style.fill : style.color), below);
        const [high, low] = [luminance(ink), luminance(below)].sort((a, b) => b - a);
        const large = parseFloat(style.fontSize) >= (style.fontWeight >= 700 ? 18.66 : 24);
        const ratio = (high + 0.05) / (low + 0.05);
        if (ratio < (large ? 3 : 4.5))
            found.push(`${element.tagName}.${element.className.baseVal ?? element.className}: `
                + `${ratio.toFixed(2)} ${element.textContent.trim().slice(0, 40)}`);
    }
    return [...new Set(found)];
}"""
"""Texts below the contrast that WCAG 2.2 asks for at level AA (1.4.3), by its formulas of relative luminance."""

REACHABLE = """() => [...document.querySelectorAll("a[href], button, input, select, textarea, summary")].filter(
    one => one.type !== "hidden" && !one.disabled && one.checkVisibility({visibilityProperty: true})
        && (one.type !== "radio" || one.checked)).map((one, at) => one.dataset.stop = String(at)).length"""

FOCUSED = """() => {
    const one = document.activeElement;
    const style = getComputedStyle(one);
    const box = one.getBoundingClientRect();
    return {
        stop: one.dataset.stop ?? null,
        what: one.outerHTML.slice(0, 80),
        ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
        seen: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
    };
}"""


@pytest.mark.parametrize("path", PAGES)
def test_no_page_is_wider_than_the_screen_or_too_pale(demo_review: Review, browsing: Browsing, path: str) -> None:
    """At 1280 and at 390 pixels, in light and dark."""
    browsing.allow("404.*999999")
    page = browsing.page()
    page.goto(demo_review.address + path)
    open_all(page)
    for look in LOOKS:
        page.emulate_media(color_scheme=look)
        assert page.evaluate(CONTRASTS) == [], look
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide[0] <= wide[1], sticking_out(page)


def open_all(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")


@pytest.mark.parametrize("path", [*PAGES[1:4], "/tags?find=cat", *PAGES[5:]])
def test_the_keyboard_gets_everywhere_and_is_seen(demo_review: Review, browsing: Browsing, path: str) -> None:
    """Tab stops at everything that can be used, with a ring around it, within the window."""
    browsing.allow("404.*999999")
    page = browsing.page()
    page.goto(demo_review.address + path)
    settle(page)
    page.evaluate("document.querySelectorAll('[data-refresh]').forEach(one => one.removeAttribute('data-refresh'))")
    number = page.evaluate(REACHABLE)
    stops = set()
    for _ in range(2 * number + 5):
        page.keyboard.press("Tab")
        stop: dict[str, Any] = page.evaluate(FOCUSED)
        if stop["stop"] is None or stop["stop"] in stops:
            continue
        assert stop["ring"], stop
        assert stop["seen"], stop
        stops.add(stop["stop"])
        if len(stops) == number:
            break
    assert len(stops) == number


def test_the_overview_says_how_far_it_is_and_what_failed(demo_review: Review, browsing: Browsing) -> None:
    page = browsing.page()
    page.goto(demo_review.url("/overview"))
    images = demo_review.compared(Policy(), Policy()).images
    facts = dict(zip(page.locator("dt").all_inner_texts(), page.locator("dd").all_inner_texts(), strict=True))
    assert facts["images"] == str(images + 1)
    assert facts["done"] == str(images)
    assert facts["pending"] == "0"
    failures = page.get_by_label("Failures")
    assert "1 failed" in failures.inner_text()
    assert "broken.jpg" in failures.inner_text()
    failures.get_by_role("link", name="corrupt").click()
    page.wait_for_url("**reason=corrupt")
    assert "tagonce retry --reason corrupt" in page.get_by_label("Failures").inner_text()

    kept: dict[str, int] = {}
    for tags in demo_review.kept(Policy()).values():
        for tag in tags:
            kept[tag] = kept.get(tag, 0) + 1
    rows = [row.inner_text().split() for row in page.get_by_label("Top tags").locator("tr").all()]
    assert rows
    assert {name: int(count) for name, count in rows} == {name: kept[name] for name, _ in rows}
    assert [int(count) for _, count in rows] == sorted(kept.values(), reverse=True)[: len(rows)]
    browsing.keep(page, "overview")
    page.get_by_role("button", name="Count anew").click()
    page.wait_for_url("**/overview**")
    demo_review.wait_until_counted()


def test_the_page_of_all_tags_counts_them(demo_review: Review, browsing: Browsing) -> None:
    """The most frequent first, each with its share of all images."""
    page = browsing.page()
    page.goto(demo_review.url("/tags", t="0.2"))
    policy = Policy(2_000)
    kept = Counter(tag for tags in demo_review.kept(policy).values() for tag in tags)
    images = demo_review.compared(policy, policy).images
    rows = [row.locator("td").all_inner_texts() for row in page.locator("tbody tr").all()]
    assert len(rows) == 200
    assert {name: int(number) for name, _, _, number, _ in rows} == {name: kept[name] for name, *_ in rows}
    assert [int(number) for *_, number, _ in rows] == sorted(kept.values(), reverse=True)[:200] + [0] * (
        200 - len(kept)
    )
    assert [share for *_, share in rows] == [f"{kept[name] / images:.1%}" for name, *_ in rows]
    assert {threshold for _, _, threshold, _, _ in rows} == {"0.2"}
    browsing.keep(page, "tags")


def test_a_search_shows_what_it_finds(demo_review: Review, browsing: Browsing) -> None:
    page = browsing.page()
    page.goto(demo_review.url("/", q="cat:0.2"))
    found = {name: tags for name, tags in demo_review.kept(Policy(100)).items() if tags.get("cat", 0) >= 0.2}
    assert shown(page).keys() == found.keys()
    assert f"The search finds {len(found)} image" in page.inner_text("#results")
    browsing.keep(page, "search")


def test_trying_begins_with_a_field_for_a_picture(demo_review: Review, browsing: Browsing) -> None:
    page = browsing.page()
    page.goto(demo_review.url("/try"))
    assert page.locator("input[type=file][required]").count() == 1
    assert page.get_by_role("button", name="Tag it").is_enabled()
    assert page.locator("table, [role=alert]").count() == 0
    browsing.keep(page, "try-empty")


def test_an_image_page_shows_all_that_is_stored(demo_review: Review, browsing: Browsing) -> None:
    page = browsing.page()
    page.goto(demo_review.url("/", t="0.3"))
    page.locator(".card", has_text="chelsea.png").locator("a.picture").click()
    page.wait_for_url("**/image/*t=0.3")
    with demo_review.reading() as (_, model, _):
        everything = demo_review.kept(Policy(model.floor))["chelsea.png"]
    above, below = page.locator("ul.chips").all()
    found = [
        dict(zip(one.locator(".chip a").all_inner_texts(), one.locator("data").all_inner_texts(), strict=True))
        for one in (above, below)
    ]
    texts = {tag: f"{probability:.4f}" for tag, probability in everything.items()}
    assert found[0] | found[1] == texts
    assert set(found[0]) == {tag for tag, probability in everything.items() if probability >= 0.3}
    browsing.keep(page, "image")
    large = page.locator("img.large")
    assert large.evaluate("image => image.decode().then(() => image.naturalWidth)") > 400


def test_a_picture_is_tried_by_the_model(
    demo_review: Review, browsing: Browsing, demo_photos: Path, tmp_path: Path
) -> None:
    """With the probabilities that `tagonce tag` stored of it; what is no picture is said to be none."""
    page = browsing.page()
    page.set_default_timeout(120_000)  # the model is loaded
    page.goto(demo_review.url("/try", t="0.2"))
    page.set_input_files("input[type=file]", demo_photos / "chelsea.png")
    page.get_by_role("button", name="Tag it").click()
    page.wait_for_selector("tbody")
    rows = [row.locator("td").all_inner_texts() for row in page.locator("tbody tr").all()]
    tags = demo_review.kept(Policy(100))["chelsea.png"]
    assert rows[0][0] in tags
    for name, probability, kept in rows:
        stored = tags.get(name)
        assert float(probability) < 0.0102 if stored is None else abs(float(probability) - stored) < 0.0002
        assert (kept == "kept") == ((stored or 0) >= 0.2)
    assert "chelsea.png" in page.inner_text("main")
    browsing.keep(page, "try")

    browsing.allow("400.*/try")
    (tmp_path / "<b>no.png").write_text("no picture")
    page.set_input_files("input[type=file]", tmp_path / "<b>no.png")
    page.get_by_role("button", name="Tag it").click()
    page.wait_for_selector("[role=alert]")
    assert "<b>no.png" in page.inner_text("[role=alert]")
    page.get_by_role("button", name="Tag it").click()
    assert page.evaluate("document.querySelector('input[type=file]').validity.valueMissing")


def test_where_no_model_can_run_the_tab_says_what_to_install(
    demo_review: Review, start_review: Callable[..., Review], browser_page: Page, tmp_path: Path
) -> None:
    """And all of the rest works without torch."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules |= dict.fromkeys(['torch', 'torchvision', 'timm'])"
    )
    review = start_review(demo_review.database_url, PYTHONPATH=str(tmp_path))
    browser_page.goto(review.url("/try"))
    assert "pip install 'tagonce[worker,web]'" in browser_page.inner_text("main")
    assert browser_page.locator("input[type=file]").count() == 0
    assert review.ask("/try", b"x", Origin=review.address, Content_Type="multipart/form-data; boundary=x").status == 400
    browser_page.goto(review.url("/"))
    assert browser_page.locator(".card").count() > 10
    browser_page.goto(review.url("/overview"))
    assert "corrupt" in browser_page.inner_text("main")


@pytest.mark.parametrize("path", ["/", "/tag/1048"])
def test_on_a_phone_nothing_shows_through_what_stays_in_place(
    demo_review: Review, browsing: Browsing, path: str
) -> None:
    """The thresholds stay at the top while the pictures move beneath them."""
    page = browsing.page(WIDTHS[1])
    page.goto(demo_review.url(path, t="0.05", size=96))
    page.evaluate("document.querySelectorAll('img').forEach(one => one.remove())")
    page.evaluate("document.querySelector('#results').style.minHeight = '4000px'")
    looks = []
    for at in range(900, 1000, 13):
        page.evaluate("at => scrollTo({top: at, behavior: 'instant'})", at)
        box = page.locator("fieldset").bounding_box()
        assert box
        assert abs(box["y"]) < 1  # it is stuck
        looks.append(page.screenshot(clip={"x": box["x"] + 9, "y": 0, "width": box["width"] - 18, "height": 60}))
    assert len(set(looks)) == 1


def test_no_script_but_ours_runs(demo_review: Review, browsing: Browsing) -> None:
    """The Content-Security-Policy stops one that somebody smuggled in, a style, and a picture of another host."""
    browsing.allow("Content Security Policy")
    page = browsing.page()
    page.goto(demo_review.url("/"))
    page.evaluate(
        """() => {
            document.body.append(Object.assign(document.createElement("script"), {textContent: "window.hit = 1"}));
            document.body.insertAdjacentHTML("beforeend", "<img src=/none onerror='window.hit = 2'>");
            document.body.insertAdjacentHTML("beforeend", "<p id=styled style='color: rgb(1, 2, 3)'>x</p>");
        }"""
    )
    browsing.allow("404.*/none")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("window.hit") is None
    assert page.evaluate("getComputedStyle(document.getElementById('styled')).color") != "rgb(1, 2, 3)"
    assert page.evaluate("fetch('http://localhost:1/').then(() => 1, () => 0)") == 0
    browsing.allow("request: http://localhost:1/")
    assert page.evaluate("document.cookie") == ""
