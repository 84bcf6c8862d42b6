"""The gallery in a real browser: what is shown at a threshold is what the database says."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from db.policy.policies import Policy, to_cut
from db.scores import NEVER
from producer.uris import path_or_uri
from tests.fixtures.browser import Browsing
from tests.fixtures.command import Outcome, wait_until
from tests.fixtures.review import Review, as_shown, settle, shown, tag, tree

CAT = "chelsea.png"


def move(page: Page, name: str, value: str) -> None:
    """Say a threshold, and wait until it is shown."""
    page.locator(f'[name="{name}"]').fill(value)
    settle(page)


def move_slider(page: Page, label: str, value: str) -> None:
    """The same by the slider."""
    page.get_by_label(f"{label}, slider").fill(value)
    settle(page)


def exported(tagonce: Callable[..., Outcome], review: Review, *options: str) -> dict[str, dict[str, float]]:
    """What `tagonce export` says: names of files to tags to probabilities."""
    done = tagonce("export", "--format", "jsonl", "--out", "-", "--database", review.database_url, *options)
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    return {Path(path_or_uri(row["uri"])).name: row["tags"] for row in rows}


def test_the_cat_loses_the_right_tags_from_02_to_05(demo_review: Review, browsing: Browsing) -> None:
    """In its picture's place stand exactly the tags whose stored scores reach the slider."""
    page = browsing.page()
    page.goto(demo_review.url("/"))
    move(page, "t", "0.2")
    loose = shown(page)
    assert loose == as_shown(demo_review.kept(Policy(2_000)))
    browsing.keep(page, "gallery-0.2")
    move_slider(page, "all tags", "0.5")
    strict = shown(page)
    assert strict == as_shown(demo_review.kept(Policy(5_000)))

    removed = loose[CAT].keys() - strict[CAT].keys()
    assert {"cat", "animal"} <= strict[CAT].keys()
    assert removed
    assert removed == {tag for tag, probability in loose[CAT].items() if float(probability) < 0.5}
    picture = page.locator(".card", has_text=CAT).locator("img")
    picture.scroll_into_view_if_needed()
    wait_until(lambda: bool(picture.evaluate("image => image.complete && image.naturalWidth > 0")))
    assert picture.evaluate("image => image.naturalWidth") > 100
    browsing.keep(page, "gallery-0.5")


def test_the_bar_counts_what_changes_as_a_walk_over_all_scores_does(demo_review: Review, browser_page: Page) -> None:
    """From the model's own threshold, also where the counts of the collection are too coarse to tell."""
    browser_page.goto(demo_review.url("/", size=12))
    for threshold in ("0.2", "0.5", "0.01", "1", "0.355", "0.1234"):
        move(browser_page, "t", threshold)
        expected = demo_review.compared(Policy(), Policy(to_cut(threshold)))
        bar = browser_page.locator("#change").inner_text()
        assert f"{expected.changed} of {expected.images} images change" in bar, threshold
        tags = f"+{expected.gained.sum():,} and −{expected.lost.sum():,} tags"  # noqa: RUF001 - as it is written
        assert tags in bar, threshold
        assert "about" not in bar, threshold


def test_a_category_has_a_slider_of_its_own(demo_review: Review, browser_page: Page) -> None:
    """It follows the one for all tags until it is moved, and goes back when its field is emptied."""
    browser_page.goto(demo_review.url("/"))
    browser_page.get_by_text("by category").click()
    move(browser_page, "t", "0.3")
    assert browser_page.get_by_label("group, slider").input_value() == "0.3"
    move_slider(browser_page, "group", "0.8")
    policy = Policy(3_000, categories={"group": 8_000})
    assert shown(browser_page) == as_shown(demo_review.kept(policy))
    expected = demo_review.compared(Policy(), policy)
    assert f"{expected.changed} of {expected.images} images change" in browser_page.inner_text("#change")
    move(browser_page, "c.group", "off")
    assert shown(browser_page) == as_shown(demo_review.kept(Policy(3_000, categories={"group": NEVER})))
    assert "c.group=off" in browser_page.url
    move(browser_page, "c.group", "")
    assert shown(browser_page) == as_shown(demo_review.kept(Policy(3_000)))


def test_the_address_says_all_of_it(demo_review: Review, browsing: Browsing) -> None:
    """Copied into another browser it shows the same, and so does going back to it."""
    page = browsing.page()
    page.goto(demo_review.url("/", sample="diverse", size=12))
    page.get_by_text("by category").click()
    move(page, "t", "0.25")
    move(page, "c.leaf", "0.6")
    before, bar = shown(page), page.inner_text("#change")
    copied = page.url
    assert "t=0.25" in copied

    other = browsing.page()
    other.goto(copied)
    assert shown(other) == before
    assert other.inner_text("#change") == bar
    assert other.locator('[name="t"]').input_value() == "0.25"
    assert other.get_by_label("leaf, slider").input_value() == "0.6"

    page.locator(".chip a").first.click()
    page.wait_for_url("**/tag/*")
    page.go_back()
    page.wait_for_url(copied)
    assert shown(page) == before
    assert page.locator('[name="t"]').input_value() == "0.25"
    assert page.get_by_label("all tags, slider").input_value() == "0.25"
    page.reload()
    assert shown(page) == before


@pytest.mark.parametrize(
    ("begin", "moves"),
    [
        ({}, [("t", "0.36"), ("t", "0.2"), ("t", "0.9"), ("t", "")]),
        ({"sample": "diverse", "size": 12}, [("c.group", "0.8"), ("t", "0.3"), ("c.group", "off"), ("c.group", "")]),
        ({"sample": "nearest", "size": 12}, [("t", "0.36"), ("t", "0.5")]),
        ({"q": "cat:0.2", "size": 12}, [("t", "0.25"), ("q", "dog:0.1"), ("t", "0.15")]),
        ({"tag.cat": "0.8", "size": 12}, [("tag.cat", "off"), ("seed", "2"), ("tag.cat", "0.1")]),
    ],
)
def test_a_move_shows_what_a_reload_shows(
    demo_review: Review, browser_page: Page, begin: dict[str, str], moves: list[tuple[str, str]]
) -> None:
    """Every element, attribute and text of the gallery, move by move; and a picture that stays is not sent again."""
    page = browser_page
    page.goto(demo_review.url("/", **begin))
    page.get_by_text("by category").click()
    for name, value in moves:
        before = set(shown(page))
        with page.expect_response(lambda answer: urlsplit(answer.url).path == "/") as answer:
            page.locator(f'[name="{name}"]').fill(value)
        settle(page)
        moved, new = tree(page), set(shown(page)) - before
        sent = answer.value.text()
        assert "<html" not in sent
        assert len(re.findall("<img", sent)) == len(new)
        page.reload()
        assert tree(page) == moved
        page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")


def test_what_others_say_meanwhile_is_in_the_next_move(demo_review: Review, browsing: Browsing) -> None:
    """Said in another browser, and taken back: either is shown as a reload shows it."""
    page, other = browsing.page(), browsing.page()
    other.goto(demo_review.url("/tags"))
    other.get_by_label("judging as").fill("bob")
    other.get_by_role("button", name="Set").click()
    for one in (page, other):
        one.goto(demo_review.url("/", t="0.2"))
    right = other.locator(".card", has_text=CAT).get_by_label("cat is right", exact=True)
    for pressed, threshold in (("true", "0.25"), ("false", "0.3")):
        right.click()
        expect(right).to_have_attribute("aria-pressed", pressed)
        move(page, "t", threshold)
        cat = page.locator(".card", has_text=CAT).get_by_label("cat is right", exact=True)
        assert ("others" in (cat.get_attribute("class") or "")) == (pressed == "true")
        moved = tree(page)
        page.reload()
        assert tree(page) == moved


def test_what_one_says_oneself_stays_through_a_move(demo_review: Review, browser_page: Page) -> None:
    page = browser_page
    page.goto(demo_review.url("/"))
    move(page, "t", "0.2")
    wrong = page.locator(".card", has_text=CAT).get_by_label("cat is wrong", exact=True)
    for pressed, threshold in (("true", "0.25"), ("false", "0.3")):
        wrong.click()
        expect(wrong).to_have_attribute("aria-pressed", pressed)
        move(page, "t", threshold)
        expect(wrong).to_have_attribute("aria-pressed", pressed)
        moved = tree(page)
        page.reload()
        assert tree(page) == moved


def test_back_leads_to_what_was_shown_before(demo_review: Review, browser_page: Page) -> None:
    """Step by step, not out of the gallery; and forward again. Sliders, fields and pictures are those of that step."""
    page = browser_page
    page.goto(demo_review.url("/tags"))
    page.goto(demo_review.url("/"))
    begun = page.url
    for value in ("0.2", "0.5"):
        move(page, "t", value)
        page.wait_for_url(demo_review.url("/", t=value))
        page.wait_for_timeout(1_100)
    page.get_by_label("diverse", exact=True).check()
    page.wait_for_url("**sample=diverse**")
    settle(page)

    def is_at(search: str, policy: Policy, value: str) -> None:
        page.wait_for_url(demo_review.url("/") + search)
        settle(page)
        expect(page.locator('[name="t"]')).to_have_value(value)
        assert shown(page) == as_shown(demo_review.kept(policy))
        assert page.locator('[name="t"]').input_value() == value
        assert page.get_by_label("all tags, slider").input_value() == (value or "0.35")
        assert page.get_by_label("random", exact=True).is_checked()

    page.go_back()
    is_at("?t=0.5", Policy(5_000), "0.5")
    page.go_back()
    is_at("?t=0.2", Policy(2_000), "0.2")
    page.go_back()
    is_at("", Policy(), "")
    assert page.url == begun
    page.go_forward()
    is_at("?t=0.2", Policy(2_000), "0.2")
    move(page, "t", "0.8")  # the form is still one that shows what it says
    assert shown(page) == as_shown(demo_review.kept(Policy(8_000)))
    page.go_back()
    is_at("?t=0.2", Policy(2_000), "0.2")
    page.go_back()
    page.go_back()
    page.wait_for_url("**/tags")


def test_a_slider_that_is_pulled_is_one_step_back(demo_review: Review, browser_page: Page) -> None:
    page = browser_page
    page.goto(demo_review.url("/"))
    before = page.evaluate("history.length")
    for value in ("0.4", "0.45", "0.5", "0.55", "0.6"):
        page.get_by_label("all tags, slider").fill(value)
    page.wait_for_url(demo_review.url("/", t="0.6"))
    assert page.evaluate("history.length") == before + 1
    page.go_back()
    page.wait_for_url(demo_review.url("/"))
    settle(page)
    assert shown(page) == as_shown(demo_review.kept(Policy()))


def test_pictures_are_drawn_in_four_ways(demo_review: Review, browsing: Browsing) -> None:
    """Random ones are others with another seed; the nearest have tags at the line; a search finds what it does on the
    command line.
    """
    page = browsing.page()
    page.goto(demo_review.url("/", size=12))
    first = shown(page)
    page.get_by_role("button", name="Others").click()
    settle(page)
    assert "seed=2" in page.url
    assert shown(page).keys() != first.keys()
    for way in ("diverse", "nearest"):
        page.get_by_label(way, exact=True).check()
        settle(page)
        assert f"sample={way}" in page.url
        if way == "diverse":
            assert len(shown(page)) == 12
    close = {
        name: sum(abs(round(score * 10_000) - 3_500) <= 500 for score in tags.values())
        for name, tags in demo_review.kept(Policy(100)).items()
    }
    nearest = [close[name] for name in shown(page)]
    assert nearest == sorted(close.values(), reverse=True)[12 : 12 + len(nearest)]  # the second page, as of "Others"
    page.get_by_role("searchbox").fill("cat:0.2 -dog:0.2")
    settle(page)
    kept = demo_review.kept(Policy(2_000))
    assert shown(page).keys() == {name for name, tags in kept.items() if "cat" in tags and "dog" not in tags}
    browsing.allow("400.*q=kat")
    page.get_by_role("searchbox").fill("kat")
    settle(page)
    assert "kat" in page.inner_text("[role=alert]")


@pytest.mark.parametrize("moved", [{"t": "0.2"}, {"t": "0.15", "c.group": "0.7", "c.leaf": "0.05"}])
def test_the_command_line_that_is_shown_gives_what_is_shown(
    demo_review: Review,
    browser_page: Page,
    tagonce: Callable[..., Outcome],
    tmp_path: Path,
    moved: dict[str, str],
) -> None:
    """Run as it stands, it writes captions of the same tags."""
    browser_page.goto(demo_review.url("/"))
    browser_page.get_by_text("by category").click()
    for name, value in moved.items():
        move(browser_page, name, value)
    said = shlex.split(browser_page.locator(".command [data-copy]").first.get_attribute("data-copy") or "")
    assert said[:2] == ["tagonce", "export"]
    done = tagonce(*said[1:])
    assert done.code == 0, done.err
    captions = {file.stem: set(file.read_text().strip().split(", ")) - {""} for file in tmp_path.rglob("*.txt")}
    on_page = {Path(name).stem: {tag.replace("_", " ") for tag in tags} for name, tags in shown(browser_page).items()}
    assert {name: tags for name, tags in captions.items() if tags} == {n: tags for n, tags in on_page.items() if tags}


def test_a_saved_profile_is_what_was_shown(
    demo_review: Review, browsing: Browsing, tagonce: Callable[..., Outcome]
) -> None:
    """Moved, compared, saved, moved again and saved as its second version; `export` keeps the same tags."""
    page = browsing.page()
    page.goto(demo_review.url("/"))
    move(page, "t", "0.22")
    page.get_by_role("link", name="Compare and save", exact=True).last.click()
    page.wait_for_url("**/compare**")
    expected = demo_review.compared(Policy(), Policy(2_200))
    text = page.inner_text("main")
    assert f"{expected.changed} of {expected.images} images change" in text
    rows = page.locator("tbody tr").all_inner_texts()
    assert len(rows) == min(len(expected.by_change), 100)
    browsing.keep(page, "compare")
    page.get_by_label("save as").fill("by eye")
    page.get_by_role("button", name="Save profile").click()
    page.wait_for_url("**/?profile=by+eye%401**")
    saved = shown(page)
    assert saved == as_shown(demo_review.kept(Policy(2_200)))
    assert as_shown(exported(tagonce, demo_review, "--profile", "by eye@1")) == saved

    move(page, "t", "0.6")
    page.get_by_role("link", name="Compare and save", exact=True).last.click()
    page.get_by_role("button", name="Save profile").click()
    page.wait_for_url("**/?profile=by+eye%402**")
    assert as_shown(exported(tagonce, demo_review, "--profile", "by eye")) == shown(page)
    assert page.get_by_label("profile").input_value() == "by eye@2"
    page.get_by_label("profile").select_option("by eye@1")
    page.wait_for_url("**profile=by+eye%401**")
    assert shown(page) == saved


def test_the_main_path_on_postgresql(
    demo_photos: Path,
    postgres_url: str,
    start_review: Callable[..., Review],
    browser_page: Page,
    tagonce: Callable[..., Outcome],
) -> None:
    """See the cat, move, save, export."""
    tag(demo_photos, postgres_url)
    review = start_review(postgres_url)
    review.wait_until_counted()
    browser_page.goto(review.opened)
    move(browser_page, "t", "0.2")
    assert shown(browser_page) == as_shown(review.kept(Policy(2_000)))
    move(browser_page, "t", "0.5")
    assert shown(browser_page) == as_shown(review.kept(Policy(5_000)))
    expected = review.compared(Policy(), Policy(5_000))
    assert f"{expected.changed} of {expected.images} images change" in browser_page.inner_text("#change")
    browser_page.get_by_role("link", name="Compare and save", exact=True).last.click()
    browser_page.get_by_role("button", name="Save profile").click()
    browser_page.wait_for_url("**/?profile=mine%401**")
    assert as_shown(exported(tagonce, review, "--profile", "mine")) == shown(browser_page)
    right = browser_page.locator(".card", has_text=CAT).get_by_label("cat is right", exact=True)
    right.click()
    expect(right).to_have_attribute("aria-pressed", "true")
    browser_page.locator(".card", has_text=CAT).get_by_role("link", name="cat", exact=True).click()
    browser_page.wait_for_url("**/tag/**")
    assert "1, 1 of them right" in browser_page.inner_text("#judged")


def test_a_review_begins_where_it_is_told_to(
    demo_review: Review, start_review: Callable[..., Review], browser_page: Page, tagonce: Callable[..., Outcome]
) -> None:
    """`--profile` and `--query` are in the address that is printed."""
    save = ("thresholds", "save", "--name", "strict", "--threshold", "0.7", "--database", demo_review.database_url)
    assert tagonce(*save).code == 0
    review = start_review(demo_review.database_url, "--profile", "strict", "--query", "cat")
    browser_page.goto(review.opened)
    kept = demo_review.kept(Policy(7_000))
    assert shown(browser_page) == as_shown({name: tags for name, tags in kept.items() if "cat" in tags})
    wrong = tagonce("review", "--database", demo_review.database_url, "--profile", "strickt", "--port", "0")
    assert wrong.code == 2
    assert "strict" in wrong.err
