"""The page of a tag, and judging by hand, in a real browser."""

import json
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from db.policy.policies import Policy
from db.scores import to_probability
from db.truth import labels
from db.truth.labels import TagLabels
from tests.fixtures.browser import Browsing
from tests.fixtures.command import Outcome
from tests.fixtures.review import Review, as_shown, settle, shown

DEFAULT = 3_500
"""The demo model's own threshold."""


def tag_id(review: Review, name: str) -> int:
    with review.reading() as (_, _, tags):
        return next(number for number, tag in enumerate(tags) if tag.name == name)


def stored(review: Review, name: str) -> dict[str, float]:
    """Names of files to what is stored of a tag, from the highest on."""
    with review.reading() as (_, model, _):
        floor = model.floor
    found = {file: tags[name] for file, tags in review.kept(Policy(floor)).items() if name in tags}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def labels_of(review: Review, name: str) -> TagLabels:
    number = tag_id(review, name)
    with review.reading() as (connection, model, _):
        return labels.of_tag(connection, model, number)


def card(page: Page, file: str) -> Locator:
    return page.locator(".card", has=page.locator(".file", has_text=re.compile(f"^{re.escape(file)}$")))


def judge(page: Page, file: str, verdict: str) -> None:
    """Press it, and wait until it is pressed."""
    card(page, file).locator(f".{verdict}").first.click()
    expect(card(page, file).locator(f".{verdict}").first).to_have_attribute("aria-pressed", "true")


def strip(page: Page, title: str) -> list[str]:
    return page.get_by_label(title).locator(".file").all_inner_texts()


@pytest.mark.parametrize("threshold", ["", "0.1", "0.02", "0.9", "1"])
def test_histogram_and_line_and_pictures_are_of_what_is_stored(
    demo_review: Review, browser_page: Page, threshold: str
) -> None:
    """On both sides of the line stand the pictures nearest to it."""
    scores = stored(demo_review, "animal")
    line = float(threshold or to_probability(DEFAULT))
    browser_page.goto(demo_review.url(f"/tag/{tag_id(demo_review, 'animal')}"))
    if threshold:
        browser_page.get_by_label("threshold, slider").fill(threshold)
        settle(browser_page)
    above = [file for file, score in scores.items() if score >= line]
    below = [file for file, score in scores.items() if score < line]
    words = browser_page.get_by_label("Scores", exact=True).inner_text()
    images = demo_review.compared(Policy(), Policy()).images
    assert f"{len(above)} of {images} images keep it at {line:g}" in words
    assert f"{images - len(scores)} lie below the floor" in words

    bars = browser_page.locator(".histogram title").all_text_contents()
    counted = [(int(count), float(low)) for count, low in (re.findall(r"^(\d+) from ([\d.]+)", bar)[0] for bar in bars)]
    assert sum(count for count, _ in counted) == len(scores)
    assert {round(low, 2) for _, low in counted} == {min(int(score * 100), 99) / 100 for score in scores.values()}
    assert browser_page.locator(".histogram .line").get_attribute("x1") == f"{900 * line:.1f}"
    assert set(strip(browser_page, "Just above")) == set(above[-8:])
    assert set(strip(browser_page, "Just below")) == set(below[:8])
    for file in (*above[-8:], *below[:8]):
        assert card(browser_page, file).locator("data").inner_text() == f"{scores[file]:.4f}"


def test_a_tag_has_a_threshold_of_its_own(demo_review: Review, browsing: Browsing) -> None:
    """Moved on its page it counts in the gallery, and nothing else changes."""
    page = browsing.page()
    number = tag_id(demo_review, "cat")
    page.goto(demo_review.url(f"/tag/{number}"))
    page.get_by_label("threshold, slider").fill("0.05")
    settle(page)
    policy = Policy(tags={"cat": 500})
    expected = demo_review.compared(Policy(), policy)
    assert f"{expected.changed} of {expected.images} images change" in page.inner_text("#change")
    page.get_by_role("link", name="Gallery").click()
    page.wait_for_url("**/?tag.cat=0.05**")
    assert shown(page) == as_shown(demo_review.kept(policy))
    page.goto(demo_review.url(f"/tag/{number}", **{"tag.cat": "off"}))
    assert "off" in page.get_by_label("Scores", exact=True).inner_text()
    assert page.locator(".histogram .line").count() == 0


def test_judging_by_mouse_ends_in_the_database_and_in_evaluate(
    demo_review: Review, browsing: Browsing, tagonce: Callable[..., Outcome]
) -> None:
    """Right, wrong, taken back; the page says how precise the line is, and marks the best ones."""
    page = browsing.page()
    scores = stored(demo_review, "animal")
    page.goto(demo_review.url(f"/tag/{tag_id(demo_review, 'animal')}"))
    assert "Nothing has been judged yet" in page.inner_text("#judged")
    files = [*strip(page, "Just above"), *strip(page, "Just below")]
    assert len(files) >= 6
    assert not files[0].startswith(("chelsea", "transparent-cat"))
    least = sorted(scores[file] for file in files)[-3]
    truth = {file: scores[file] >= least for file in files}
    assert {True, False} == set(truth.values())
    for file, is_right in truth.items():
        judge(page, file, "right" if is_right else "wrong")
    card(page, files[0]).locator(".wrong").click()
    expect(card(page, files[0]).locator(".wrong")).to_have_attribute("aria-pressed", "false")
    assert len(labels_of(demo_review, "animal")) == len(files) - 1
    judge(page, files[0], "wrong")

    known = labels_of(demo_review, "animal")
    assert dict(zip(known.scores.tolist(), known.right.tolist(), strict=True)) == {
        round(scores[file] * 10_000): is_right for file, is_right in truth.items()
    }
    text = page.inner_text("#judged")
    assert f"{len(files)}, {sum(truth.values())} of them right" in text
    kept = [file for file in files if scores[file] >= to_probability(DEFAULT)]
    assert "95 %, Wilson" in text
    assert f"labels: {len(kept)})" in text
    page.reload()
    assert page.inner_text("#judged") == text
    assert page.locator(".histogram .best").count() >= 1
    browsing.keep(page, "tag")
    assert page.locator('[aria-pressed="true"]').count() == len(files)

    best = page.locator("#judged dd a").first
    threshold = best.inner_text()
    best.click()
    page.wait_for_url(f"**tag.animal={threshold}**")
    assert page.locator("#n-tag").input_value() == threshold

    judged = tagonce("evaluate", "labels", "--tag", "animal", "--json", "--database", demo_review.database_url)
    assert judged.code == 0, judged.err
    assert json.loads(judged.out)
    plain = tagonce("evaluate", "labels", "--threshold", "0.35", "--database", demo_review.database_url)
    assert plain.code == 0, plain.err
    assert f"{len(files)} images" in plain.out + plain.err


def test_judging_by_keyboard_alone(demo_review: Review, browser_page: Page) -> None:
    """With j to the next picture; y says right, n wrong, and the keys stay where they are. Tab and Enter do it, too."""
    browser_page.goto(demo_review.url(f"/tag/{tag_id(demo_review, 'dog')}", **{"tag.dog": "0.03"}))
    first, second = browser_page.locator(".card").nth(0), browser_page.locator(".card").nth(1)
    browser_page.keyboard.press("j")
    browser_page.keyboard.press("n")
    expect(first.locator(".wrong")).to_have_attribute("aria-pressed", "true")
    expect(first.locator(":focus")).to_have_count(1)
    browser_page.keyboard.press("j")
    browser_page.keyboard.press("y")
    expect(second.locator(".right")).to_have_attribute("aria-pressed", "true")
    browser_page.keyboard.press("k")
    for _ in range(9):
        if first.locator(".right:focus").count():
            break
        browser_page.keyboard.press("Tab")
    browser_page.keyboard.press("Enter")
    expect(first.locator(".right")).to_have_attribute("aria-pressed", "true")
    expect(first.locator(".wrong")).to_have_attribute("aria-pressed", "false")
    expect(first.locator(".right:focus")).to_have_count(1)
    assert labels_of(demo_review, "dog").right.tolist() == [True, True]
    browser_page.locator("#n-seed").focus()
    browser_page.keyboard.type("y")
    assert len(labels_of(demo_review, "dog")) == 2


def test_who_judges_is_kept_with_the_label_and_how_the_picture_came(demo_review: Review, browser_page: Page) -> None:
    """Two people may disagree; then nobody decides."""
    page = browser_page
    page.goto(demo_review.url("/", sample="diverse", q="", t="0.3"))
    file = next(file for file, tags in shown(page).items() if "vehicle" in tags)
    for name, verdict in (("Ada L.", "right"), ("Grace “Amazing” H.", "wrong")):
        page.get_by_label("judging as").fill(name)
        page.get_by_role("button", name="Set").click()
        page.wait_for_load_state()
        assert page.get_by_label("judging as").input_value() == name
        assert "sample=diverse" in page.url
        button = card(page, file).get_by_label(f"vehicle is {verdict}", exact=True)
        assert button.get_attribute("aria-pressed") == "false"
        button.click()
        expect(card(page, file).get_by_label(f"vehicle is {verdict}", exact=True)).to_have_attribute(
            "aria-pressed", "true"
        )
        with demo_review.reading() as (connection, model, _):
            assert name in labels.people(connection, model)
            assert labels.every(connection, model).drawn.get("diverse")
    assert len(labels_of(demo_review, "vehicle")) == 0


def test_all_of_it_works_without_a_script(demo_review: Review, browsing: Browsing) -> None:
    """Forms are sent, and answered with the page they were sent from."""
    page = browsing.page(java_script_enabled=False)
    page.goto(demo_review.url("/"))
    page.locator('[name="t"]').fill("0.44")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**t=0.44**")
    kept = as_shown(demo_review.kept(Policy(4_400)))
    cards = {
        one.locator(".file").text_content(): one.locator(".chip > a").all_text_contents()
        for one in page.locator(".card").all()
    }
    assert cards == {file: list(tags) for file, tags in kept.items()}
    button = card(page, "coffee.png").locator(".right").first
    label = str(button.get_attribute("aria-label"))
    button.click()
    page.wait_for_url("**t=0.44**#card-*")
    assert card(page, "coffee.png").get_by_label(label, exact=True).get_attribute("aria-pressed") == "true"
    assert len(labels_of(demo_review, label.removesuffix(" is right"))) == 1
