"""The numbers on the pages are those of the database, or are marked as estimates: with thresholds of any precision,
with top-k and MCut, before and after the collection is counted, on both databases.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from starlette.testclient import TestClient

from db import sampling
from db.database import Database
from db.ledger.models import Model
from db.policy import profiles
from db.policy.policies import Policy, resolve
from db.read import comparison, tag_batches
from db.read.tag_batches import TagBatch, kept_mask
from db.read.tag_counts import tag_counts
from tagonce.web.state import collection
from tagonce.web.state.site import Site
from tests.fixtures.pages import IMAGES, OURS, browser_of, scores, text
from tests.services.conftest import TAGS

PLAIN, FINE, TOP, MCUT, BOTH = (
    Policy(4000),
    Policy(4567, {}, {"tag_03": 1234}),
    Policy(3000, top=2),
    Policy(mcut=True),
    Policy(2000, {"general": 5000}, top=3, mcut=True),
)
POLICIES = {"plain": PLAIN, "fine": FINE, "top": TOP, "mcut": MCUT, "both": BOTH}
FEW = 20
"""Images in a random sample."""


@pytest.fixture(autouse=True)
def saved(database: Database, model: Model) -> None:
    """Save a profile of each policy."""
    with database.write() as connection:
        for name, policy in POLICIES.items():
            profiles.save(connection, model, name, policy, source="a test")


@pytest.fixture
def uncounted(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], TestClient]]:
    """Starts pages with a sample of a given size, while the count of the collection is still running."""
    may_end = threading.Event()
    count = collection.distribution.count_scores

    def slow(*arguments: object, **options: object) -> object:
        may_end.wait(60)
        return count(*arguments, **options)  # type: ignore[arg-type]

    def start(pool: int) -> TestClient:
        monkeypatch.setattr(collection, "POOL", pool)
        monkeypatch.setattr(collection.distribution, "count_scores", slow)
        site.collection.count()
        assert site.collection.pool is not None
        assert site.collection.distribution is None
        return browser_of(site)

    yield start
    may_end.set()
    site.collection.wait()


def on_tags(page: TestClient, profile: str) -> dict[str, str]:
    """Tag to its number on the page of all tags."""
    rows = re.findall(r"<tr><td><a [^>]*>(\w+)</a>.*?</tr>", page.get(f"/tags?profile={profile}").text, re.DOTALL)
    cells = re.findall(
        r"<tr><td><a [^>]*>(\w+)</a>.*?</td>\s*<td class=\"n\">[^<]*</td>\s*<td class=\"n\">([^<]*)</td>",
        page.get(f"/tags?profile={profile}").text,
        re.DOTALL,
    )
    assert len(rows) == len(cells) == len(TAGS)
    return dict(cells)


def on_overview(page: TestClient, profile: str) -> dict[str, str]:
    part = page.get(f"/overview?profile={profile}").text.partition("Most frequent tags")[2]
    return dict(re.findall(r"<tr><td><a [^>]*>(\w+)</a></td><td class=\"n\">([^<]*)</td></tr>", part))


def on_tag(page: TestClient, tag_id: int, profile: str) -> str:
    """The number of images that keep the tag."""
    found = re.search(r"<p><b>([^<]*)</b> of 60 images keeps? it", page.get(f"/tag/{tag_id}?profile={profile}").text)
    assert found
    return found[1]


def by_change(page: TestClient, profile: str) -> dict[str, tuple[str, str]]:
    """Tag to the images that gain and lose it, from the table of the compare page."""
    part = page.get(f"/compare?{profile}").text.partition('id="by-tag"')[2]
    rows = re.findall(
        r"<tr><td><a [^>]*>(\w+)</a></td><td class=\"n\">([^<]*)</td><td class=\"n\">([^<]*)</td></tr>", part
    )
    return {tag: (gained, lost) for tag, gained, lost in rows}


def stored(database: Database, model: Model, policy: Policy) -> dict[str, int]:
    """Tag to images that keep it, from `tagonce counts`."""
    with database.read() as connection:
        return {one.tag: one.images for one in tag_counts(connection, model, resolve(model, TAGS, policy))}


def plainly(policy: Policy) -> dict[str, int]:
    """The same for a policy without MCut, from the scores in memory, tag by tag."""
    counts = dict.fromkeys((tag.name for tag in TAGS), 0)
    for number in range(IMAGES):
        ranked = sorted(
            zip(scores(number).scores.tolist(), scores(number).tag_ids.tolist(), strict=True),
            key=lambda pair: (-pair[0], pair[1]),
        )
        kept = [tag for score, tag in ranked if score >= policy.tags.get(TAGS[tag].name, policy.default or 0)]
        for tag in kept[: policy.top]:
            counts[TAGS[tag].name] += 1
    return {name: count for name, count in counts.items() if count}


def every_number(page: TestClient, profile: str, counts: Mapping[str, int], about: str = "") -> None:
    """Assert that all three pages show these numbers."""
    expected = {tag.name: f"{about}{counts.get(tag.name, 0)}" for tag in TAGS}
    assert on_tags(page, profile) == expected
    assert on_overview(page, profile) == {name: number for name, number in expected.items() if counts.get(name)}
    for tag_id in (3, 4, 8):
        assert on_tag(page, tag_id, profile) == expected[TAGS[tag_id].name]


@pytest.mark.parametrize("profile", POLICIES)
def test_when_all_is_counted_every_page_says_what_is_stored(
    page: TestClient, database: Database, model: Model, profile: str
) -> None:
    counts = stored(database, model, POLICIES[profile])
    if not POLICIES[profile].mcut:
        assert counts == plainly(POLICIES[profile])
    every_number(page, profile, counts)


@pytest.mark.parametrize("profile", POLICIES)
def test_before_it_is_counted_too_where_all_images_are_looked_at(
    uncounted: Callable[[int], TestClient], database: Database, model: Model, profile: str
) -> None:
    page = uncounted(collection.POOL)
    assert "Counting the collection" in text(page.get(f"/?profile={profile}&t=0.2").text)
    every_number(page, profile, stored(database, model, POLICIES[profile]))


def drawn(database: Database, model: Model) -> TagBatch:
    """The images in the random sample of the site."""
    with database.read() as connection:
        return sampling.load(connection, model, sampling.random_ids(connection, model, FEW, seed=1), model.floor)


def kept_of(found: TagBatch, model: Model, policy: Policy) -> TagBatch:
    return found.only(kept_mask(found, resolve(model, TAGS, policy)))


def estimated(database: Database, model: Model, policy: Policy) -> dict[str, int]:
    kept = kept_of(drawn(database, model), model, policy)
    times = np.bincount(kept.tag_ids, minlength=len(TAGS)) * (IMAGES // FEW)
    return {TAGS[tag_id].name: int(number) for tag_id, number in enumerate(times) if number}


@pytest.mark.parametrize("profile", POLICIES)
def test_from_some_images_every_number_is_an_estimate_for_all_and_says_so(
    uncounted: Callable[[int], TestClient], database: Database, model: Model, profile: str
) -> None:
    page, policy = uncounted(FEW), POLICIES[profile]
    counts = estimated(database, model, policy)
    expected = {tag.name: f"about {counts.get(tag.name, 0)}" for tag in TAGS}
    assert on_tags(page, profile) == expected
    assert on_overview(page, profile) == {name: number for name, number in expected.items() if name in counts}
    exact = stored(database, model, policy)
    for tag_id in (3, 4, 8):  # for one tag only thresholds are counted in SQL
        name = TAGS[tag_id].name
        limited = policy.top is not None or policy.mcut
        assert on_tag(page, tag_id, profile) == (expected[name] if limited else str(exact.get(name, 0)))


@pytest.mark.parametrize("profile", POLICIES)
def test_what_changes_by_tag_is_of_the_whole_collection(
    page: TestClient, database: Database, model: Model, profile: str
) -> None:
    policy = POLICIES[profile]
    moved = policy.changed(Policy(6000))
    with database.read() as connection:
        cuts = [resolve(model, TAGS, one) for one in (policy, moved)]
        found = comparison.compare(connection, model, *cuts)
    expected = {TAGS[tag_id].name: (str(found.gained[tag_id]), str(found.lost[tag_id])) for tag_id in found.by_change}
    assert by_change(page, f"profile={profile}&t=0.6") == expected
    assert f"{found.changed} of {IMAGES} images change" in text(page.get(f"/compare?profile={profile}&t=0.6").text)


def test_the_page_that_compares_calls_no_sample_the_collection(
    uncounted: Callable[[int], TestClient], database: Database, model: Model
) -> None:
    page = uncounted(FEW)
    cuts = [resolve(model, TAGS, one) for one in (Policy(), Policy(2000))]
    found = comparison.compare_batches([drawn(database, model)], *cuts)
    times = IMAGES // FEW
    expected = {
        TAGS[tag_id].name: tuple(f"about {times * part[tag_id]}" for part in (found.gained, found.lost))
        for tag_id in found.by_change
    }
    assert expected
    assert by_change(page, "t=0.2") == expected
    shown = text(page.get("/compare?t=0.2").text)
    assert f"about {times * found.changed} of {IMAGES} images change" in shown
    assert f"Estimated from {FEW} images drawn at random" in shown


def test_counts_of_another_day_are_not_mixed_with_images_of_today(
    page: TestClient, site: Site, database: Database, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of counts has 60 images. A threshold that it does not determine is estimated for the present number."""
    assert site.collection.distribution is not None
    with monkeypatch.context() as patched:
        patched.setattr(collection, "POOL", FEW)
        patched.setattr(collection.run_progress, "predicted", lambda *_: 10 * IMAGES)
        patched.setattr(collection.distribution, "count_scores", lambda *_, **__: site.collection.distribution)
        site.collection.count()
        site.collection.wait()
    shown = on_tags(page, "plain&tag.tag_03=0.1234")  # the old counts determine all thresholds but this one
    kept = kept_of(drawn(database, model), model, PLAIN.changed(Policy(tags={"tag_03": 1234}))).tag_ids
    times = 10 * IMAGES // FEW
    assert shown == {tag.name: f"about {times * int((kept == tag_id).sum())}" for tag_id, tag in enumerate(TAGS)}


def test_before_anything_is_known_no_number_is_shown(site: Site) -> None:
    page = browser_of(site)
    site.collection.counting = True
    assert set(on_tags(page, "top").values()) == {"…"}
    assert on_tag(page, 3, "top") == "…"
    assert on_overview(page, "plain") == {}
    assert by_change(page, "t=0.2") == {}


@pytest.mark.parametrize("profile", POLICIES)
def test_a_picture_that_is_tried_keeps_what_it_would_keep_if_it_were_stored(
    site: Site, database: Database, model: Model, ids: list[int], profile: str
) -> None:
    cut = resolve(model, TAGS, POLICIES[profile])
    with database.read() as connection:
        found = sampling.load(connection, model, ids, model.floor)
    kept = kept_of(found, model, POLICIES[profile])
    for number in range(IMAGES):
        probabilities = np.zeros(len(TAGS))
        probabilities[scores(number).tag_ids] = (scores(number).scores + 0.5) / 10_000
        mine = kept.tag_ids[kept.offsets[number] : kept.offsets[number + 1]]
        assert set(tag_batches.kept_of(probabilities.tolist(), cut)) == set(mine.tolist())


def test_one_of_anything_is_not_several(page: TestClient) -> None:
    shown = text(page.get("/?q=tag_01:0.01 tag_02:0.01 tag_03:0.01 tag_04:0.01 tag_05:0.01").text)
    number = len(re.findall("card-", page.get("/?q=tag_01:0.01 tag_02:0.01 tag_03:0.01 tag_04:0.01 tag_05:0.01").text))
    assert "1 images" not in shown, number
    for path in ("/", "/tags", "/overview", "/compare?t=0.2", *(f"/tag/{n}?tag.tag_{n:02}=0.99" for n in range(20))):
        wrong = re.search(r"(?<![\d.,])1 (images|tags|labels|workers|more tags)\b", text(page.get(path).text))
        assert wrong is None, path


def test_of_two_saves_at_once_the_second_is_told_of_the_first(
    page: TestClient, site: Site, database: Database, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both began with plain@1. Otherwise the version after the next would lack the change of the next one."""
    together = threading.Barrier(2)
    save = profiles.save

    def slow(*arguments: object, **options: object) -> object:
        with suppress(threading.BrokenBarrierError):  # the barrier breaks if one save waits for the other
            together.wait(1.5)
        return save(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(profiles, "save", slow)
    base = re.findall(r'name="profile" value="([^"]*)"', page.get("/compare?profile=plain&t=0.3").text)[-1]
    assert base == "plain@1"

    def post(said: dict[str, str]) -> int:
        data = {"profile": base, "name": "plain"} | said
        return browser_of(site).post("/save", data=data, headers=OURS, follow_redirects=False).status_code

    with ThreadPoolExecutor(2) as threads:
        codes = sorted(threads.map(post, [{"t": "0.3"}, {"c.general": "0.6"}]))
    assert codes == [303, 400]
    with database.read() as connection:
        assert [one.version for one in profiles.every(connection, model) if one.name == "plain"] == [1, 2]


def test_a_save_that_was_sent_twice_is_one(page: TestClient) -> None:
    data = {"profile": "plain@1", "t": "0.3", "name": "plain"}
    answers = [page.post("/save", data=data, headers=OURS, follow_redirects=False) for _ in range(2)]
    assert {one.headers["location"] for one in answers} == {"/?profile=plain%402&saved=1"}
