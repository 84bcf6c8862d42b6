"""The pages of `tagonce review` over HTTP, without a browser, on both databases. Their counts are those stored."""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Select, event, func, literal, select
from sqlalchemy import text as sql
from starlette.testclient import TestClient

from db.database import Database, open_database
from db.errors import Reason, TransientError
from db.ledger import results
from db.ledger.models import Model
from db.ledger.results import Failure
from db.policy import profiles
from db.policy.policies import Policy, resolve
from db.read import comparison, histograms
from db.read.tag_batches import read_tag_batches
from db.schema import predictions
from db.sql.connection.connections import lift_statement_timeout
from db.sql.streams import stream_in_order
from db.truth import labels
from db.truth.precision import figures_at, precision_at, weights_of
from tagonce.web.pages import picture
from tagonce.web.pictures.thumbnails import PREVIEW_SIZE
from tagonce.web.state.site import Site
from tests.fixtures.pages import IMAGES, OURS, text
from tests.services.conftest import TAGS

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def diff(database: Database, model: Model) -> Callable[[Policy, Policy], comparison.Comparison]:
    def between(first: Policy, second: Policy) -> comparison.Comparison:
        with database.read() as connection:
            return comparison.compare(connection, model, resolve(model, TAGS, first), resolve(model, TAGS, second))

    return between


def chips(answer: str, image_id: int) -> list[str]:
    """The tags on the card of an image."""
    card = answer.split(f'id="card-{image_id}"')[1].split("</form>", maxsplit=1)[0]
    return re.findall(r'<li class="chip[^"]*">\s*<a [^>]*>([^<]+)</a>', card.replace("<wbr>", ""))


def test_the_gallery_shows_what_the_thresholds_keep(
    page: TestClient, database: Database, model: Model, ids: list[int]
) -> None:
    answer = page.get("/?t=0.6&tag.tag_03=0.9&c.general=0.7&size=96")
    assert answer.status_code == 200
    with database.read() as connection:
        cut = resolve(model, TAGS, Policy(6000, {"general": 7000}, {"tag_03": 9000}))
        for batch in read_tag_batches(connection, model, cut):
            for row, image_id in enumerate(batch.image_ids):
                kept = batch.tag_ids[batch.offsets[row] : batch.offsets[row + 1]]
                assert chips(answer.text, image_id) == [TAGS[tag].name for tag in kept.tolist()]


@pytest.mark.parametrize(
    ("address", "policy"),
    [
        ("t=0.2", Policy(2000)),
        ("t=0.5", Policy(5000)),
        ("t=0.01", Policy(100)),
        ("c.general=0.8", Policy(categories={"general": 8000})),
        ("c.general=off", Policy(categories={"general": 10_001})),
        ("tag.tag_04=0.1", Policy(tags={"tag_04": 1000})),
        ("t=0.5123&tag.tag_04=0.1&c.general=0.3", Policy(5123, {"general": 3000}, {"tag_04": 1000})),
    ],
)
def test_what_changes_in_the_collection_is_what_a_comparison_counts(
    page: TestClient, diff: Callable[[Policy, Policy], comparison.Comparison], address: str, policy: Policy
) -> None:
    found = diff(Policy(), policy)
    minus = "\N{MINUS SIGN}"
    expected = f"{found.changed} of {IMAGES} images change: +{found.gained.sum()} and {minus}{found.lost.sum()} tags"
    for path in ("/", "/tag/4", "/compare"):
        assert expected in text(page.get(f"{path}?{address}").text)


def moved(page: TestClient, before: str, after: str, shown: str | None = None) -> str:
    """What the script gets when the address changes from one to another.

    Args:
        shown: the page that it has; that of the first address where none is said.
    """
    digests = re.findall(r'data-digest="([^"]+)"', page.get(before).text if shown is None else shown)
    answer = page.get(after, headers={"x-cards": " ".join(digests), "referer": f"http://127.0.0.1:8765{before}"})
    assert answer.status_code == 200
    return answer.text


def test_a_moved_slider_is_answered_with_what_differs(page: TestClient) -> None:
    """Of pictures that the script has: tags that are new, and which of the others stay; and the counts."""
    whole = page.get("/?t=0.45&size=48").text
    part = moved(page, "/?t=0.5&size=48", "/?t=0.45&size=48")
    assert "<html" not in part
    assert "<img" not in part
    assert part.count("data-known") == 48
    assert 0 < part.count('class="chip ') < whole.count('class="chip ') / 5
    digests = [re.findall(r'data-digest="([^"]+)"', one) for one in (whole, part)]
    assert digests[0] == digests[1]
    counts = [one.split('id="change"')[1].split("</section>", maxsplit=1)[0] for one in (whole, part)]
    assert counts[0] == counts[1]
    assert len(part) < len(whole) / 5


@pytest.mark.parametrize("before", ["/?size=48&profile=mine", "/?size=48&sample=diverse", "/?size=48&t=0.9", "/tags"])
def test_a_card_that_the_script_does_not_have_is_sent_whole(
    page: TestClient, database: Database, model: Model, before: str
) -> None:
    """It was drawn with another profile, another way of choosing, at other thresholds than the address says."""
    with database.write() as connection:
        profiles.save(connection, model, "mine", Policy(4000), source="a test")
    shown = page.get("/?t=0.5&size=48").text if before != "/?size=48&profile=mine" else None
    part = moved(page, before, "/?t=0.45&size=48", shown)
    whole = page.get("/?t=0.45&size=48").text
    if before in ("/?size=48&t=0.9", "/tags"):  # some pictures have the same tags at either
        assert 24 < part.count("<img") < 48
    else:
        assert part.count("<img") == whole.count("<img") == 48


def test_a_card_of_which_somebody_says_something_meanwhile_is_sent_whole(page: TestClient, ids: list[int]) -> None:
    shown = page.get("/?t=0.2&size=96").text
    tag_id = re.findall(r'name="judge" value="(\d+):', shown.split(f'id="card-{ids[3]}"')[1])[0]
    page.post("/who", data={"name": "bob", "back": "/"}, headers=OURS)
    assert judge(page, ids[3], f"{tag_id}:right") == 200
    page.post("/who", data={"name": "ann", "back": "/"}, headers=OURS)
    part = moved(page, "/?t=0.2&size=96", "/?t=0.25&size=96", shown)
    assert re.findall(r'<img src="/thumb/(\d+)"', part) == [str(ids[3])]


def test_the_gallery_reads_profiles_once_and_a_move_reads_one(
    page: TestClient, database: Database, model: Model
) -> None:
    with database.write() as connection:
        for number in range(3):
            profiles.save(connection, model, "mine", Policy(4000 + number), source="a test")
    read: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *said: read.append(said[2]))
    address = "/?profile=mine%402"
    digests = re.findall(r'data-digest="([^"]+)"', page.get(address).text)
    policies = [statement for statement in read if "profiles.policy" in statement]
    assert len(policies) == 1
    assert len([statement for statement in read if "FROM profiles" in statement]) == 2  # and the labels of all
    read.clear()
    page.get(f"{address}&t=0.6", headers={"x-cards": " ".join(digests), "referer": f"http://127.0.0.1:8765{address}"})
    assert len([statement for statement in read if "FROM profiles" in statement]) == 1
    assert len(read) <= 6


def test_what_was_moved_is_saved_and_is_what_an_export_keeps(
    page: TestClient, database: Database, model: Model
) -> None:
    with database.write() as connection:
        profiles.save(connection, model, "mine", Policy(4000, {}, {"tag_01": 9000}), source="a test")
    said = {"profile": "mine", "t": "0.3", "c.general": "0.6", "name": "mine"}
    answer = page.post("/save", data=said, headers=OURS, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/?profile=mine%402&saved=1")
    assert "Saved as mine@2 . Captions with it: tagonce export" in text(page.get(answer.headers["location"]).text)
    with database.read() as connection:
        saved = profiles.find(connection, model, "mine@2")
    assert saved.policy == Policy(3000, {"general": 6000}, {"tag_01": 9000})
    assert saved.source == "mine@1, changed by ann in tagonce review"
    assert "As mine@2 has it" in text(page.get("/?profile=mine@2").text)


def test_the_next_version_of_a_profile_begins_with_the_one_before_it(
    page: TestClient, database: Database, model: Model
) -> None:
    """Otherwise the thresholds of that version would silently be lost."""
    for version in (1, 2):
        with database.write() as connection:
            profiles.save(connection, model, "mine", Policy(tags={"tag_01": 5000 + version}), source="a test")
    for base in ("", "mine@1"):
        answer = page.post("/save", data={"profile": base, "t": "0.3", "name": "mine"}, headers=OURS)
        assert answer.status_code == 400
        assert "mine@2 already exists, and this would drop its thresholds" in answer.text
    assert 'name="name" value="mine-2"' in page.get("/compare?t=0.3").text
    assert 'name="name" value="mine"' in page.get("/compare?profile=mine&t=0.3").text
    assert "all tags: 0.35 → 0.3" in text(page.get("/compare?t=0.3").text)
    assert page.post("/save", data={"profile": "mine", "t": "0.3", "name": "mine"}, headers=OURS).status_code == 200


def test_nothing_moved_is_nothing_saved(page: TestClient) -> None:
    answer = page.post("/save", data={"name": "x"}, headers=OURS)
    assert answer.status_code == 400
    assert "Nothing to save" in answer.text


def test_the_command_that_is_shown_says_what_was_moved(page: TestClient) -> None:
    shown = text(page.get("/compare?profile=&t=0.3&tag.tag_02=off").text)
    assert "tagonce export --out captions --overwrite --threshold 0.3 --tag-threshold tag_02=off" in shown
    assert "tagonce thresholds save --name mine --threshold 0.3 --tag-threshold tag_02=off" in shown


def judge(page: TestClient, image_id: int, said: str, **more: str) -> int:
    data = {"image": str(image_id), "judge": said, "drawn": "random", "back": "/tag/3"} | more
    return page.post("/label", data=data, headers=OURS).status_code


def test_a_verdict_is_stored_shown_and_taken_back(
    page: TestClient, database: Database, model: Model, ids: list[int]
) -> None:
    assert judge(page, ids[0], "3:right") == judge(page, ids[1], "3:wrong") == 200
    with database.read() as connection:
        assert labels.of_images(connection, model, ids) == {ids[0]: {3: True}, ids[1]: {3: False}}
        assert labels.people(connection, model) == {"ann": 2}
    assert 'aria-pressed="true" aria-label="tag_03 is right"' in page.get(f"/image/{ids[0]}").text
    assert judge(page, ids[1], "3:right") == 200  # another word
    assert judge(page, ids[1], "3:right") == 200  # a double click
    assert 'value="3:none" class="right"' in page.get(f"/image/{ids[0]}").text
    assert judge(page, ids[0], "3:none") == 200
    with database.read() as connection:
        assert labels.of_images(connection, model, ids) == {ids[1]: {3: True}}


def test_people_judge_under_their_names(page: TestClient, database: Database, model: Model, ids: list[int]) -> None:
    judge(page, ids[0], "3:right")
    assert page.post("/who", data={"name": "Zoë 💡", "back": "/tags"}, headers=OURS).url.path == "/tags"
    judge(page, ids[0], "3:wrong")
    assert 'value="Zoë 💡"' in page.get("/").text
    with database.read() as connection:
        assert labels.people(connection, model) == {"ann": 1, "Zoë 💡": 1}
        assert labels.of_images(connection, model, ids) == {}  # as many for as against


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # it never reaches the database
@pytest.mark.parametrize(
    ("image", "said", "more"),
    [
        (None, "3:right", {}),
        (1, "3:perhaps", {}),
        (1, "right", {}),
        (1, "99:right", {}),
        (1, "-1:right", {}),
        (1, "3:right", {"drawn": "by hand"}),
        (10**12, "3:right", {}),
        (10**20, "3:right", {}),
    ],
)
def test_a_verdict_that_says_nothing_is_refused(
    page: TestClient, image: int | None, said: str, more: dict[str, str]
) -> None:
    assert judge(page, image or 0, said, **(more if image else {"image": "x"})) == 400


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # it never reaches the database
@pytest.mark.parametrize("back", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x", ""])
def test_a_form_returns_to_a_page_of_ours(page: TestClient, back: str) -> None:
    answer = page.post("/who", data={"name": "bob", "back": back}, headers=OURS, follow_redirects=False)
    assert answer.headers["location"] == "/"


def test_the_page_of_a_tag_counts_what_is_stored(
    page: TestClient, database: Database, model: Model, ids: list[int]
) -> None:
    with database.read() as connection:
        (batch,) = read_tag_batches(connection, model, resolve(model, TAGS, Policy(100)))
    of_tag = np.sort(batch.scores[batch.tag_ids == 5])
    shown = page.get("/tag/5?tag.tag_05=0.4")
    assert f"{int((of_tag >= 4000).sum())} of {IMAGES} images keep it at 0.4" in text(shown.text)
    found = [int(float(one) * 10_000 + 0.5) for one in re.findall(r"<data>([0-9.]+)</data>", shown.text)]
    above, below = of_tag[of_tag >= 4000][:8], of_tag[of_tag < 4000][::-1][:8]
    assert found == [*above.tolist(), *below.tolist()]
    bars = re.findall(r"<title>(\d+) from ([0-9.]+) to", shown.text)
    assert {round(float(low) * 100): int(number) for number, low in bars} == Counter(
        (of_tag // 100).clip(max=99).tolist()
    )
    further = re.findall(r"<data>([0-9.]+)</data>", page.get("/tag/5?tag.tag_05=0.4&seed=2").text)
    assert [int(float(one) * 10_000 + 0.5) for one in further] == [
        *of_tag[of_tag >= 4000][8:16].tolist(),
        *of_tag[of_tag < 4000][::-1][8:16].tolist(),
    ]
    assert "0 of 60 images keep it at off" in text(page.get("/tag/5?tag.tag_05=off&show=above").text)
    below = re.findall(r"<data>([0-9.]+)</data>", page.get("/tag/5?tag.tag_05=0.4&show=below&seed=4").text)
    assert len(below) == min(12, (of_tag < 4000).sum())
    assert {int(float(one) * 10_000 + 0.5) for one in below} <= set(of_tag[of_tag < 4000].tolist())


def test_precision_is_told_with_its_interval(
    page: TestClient, database: Database, model: Model, ids: list[int]
) -> None:
    assert "Nothing has been judged yet" in page.get("/tag/3").text
    for number, image_id in enumerate(ids):
        judge(page, image_id, "3:wrong" if number % 3 else "3:right")
    shown = text(page.get("/tag/3?tag.tag_03=0.2").text)
    assert "60, 20 of them right" in shown
    with database.read() as connection:
        known = labels.of_tag(connection, model, 3)
        spread = histograms.histogram(connection, model, 3, 100)
    weights = weights_of(known, 2000, spread.counts, spread.not_stored).values
    figures = figures_at(known, 2000, weights)
    at_line = precision_at(known, 2000, spread.counts)
    assert f"{at_line.value:.3f} between {at_line.low:.3f} and {at_line.high:.3f} (95 %, Wilson, labels: " in shown
    for name, one in (("recall", figures.recall), ("informedness", figures.informedness)):
        assert f"{name} {one.value:.2f} ({one.low:.2f} to {one.high:.2f})" in shown
        assert one.high - one.low > 0.1
    goals = re.findall(r"(0\.\d+) : precision ([\d.]+) \(([\d.]+) to ([\d.]+)\)", shown)
    assert goals
    for threshold, *numbers in goals:
        best = figures_at(
            known, round(float(threshold) * 10_000), weights_of(known, 2000, spread.counts, spread.not_stored).values
        )
        assert numbers == [f"{one:.2f}" for one in (best.precision.value, best.precision.low, best.precision.high)]


@pytest.mark.parametrize("number", [1, 7])
def test_labels_next_to_the_line_alone_tell_no_precision(page: TestClient, number: int) -> None:
    """Seven correct labels would give a precision of 1, whose Wilson interval begins at 0.65."""
    nearest = re.findall(r'id="card-(\d+)"', page.get("/tag/3?tag.tag_03=0.2").text)[:number]
    for image_id in nearest:
        judge(page, int(image_id), "3:right")
    shown = text(page.get("/tag/3?tag.tag_03=0.2").text).partition("How right")[2].partition("tag_03")[0]
    assert f"{number}, {number} of them right" in shown
    assert f"not known yet: {number} label{'s' * (number > 1)} next to the line alone" in shown
    assert "1.00" not in shown
    assert "Wilson" not in shown
    assert "recall " not in shown


@pytest.mark.parametrize("sample", ["random", "diverse", "nearest"])
def test_samples_are_of_the_collection_and_none_twice(page: TestClient, sample: str, ids: list[int]) -> None:
    shown = [
        [int(one) for one in re.findall(r'id="card-(\d+)"', page.get(f"/?sample={sample}&size=12&seed={seed}").text)]
        for seed in (1, 2)
    ]
    for one in shown:
        assert len(one) == len(set(one)) == 12
        assert set(one) <= set(ids)
    assert shown[0] != shown[1]


def test_a_search_shows_what_it_finds_and_moving_a_slider_keeps_it(
    page: TestClient, database: Database, model: Model
) -> None:
    pages = [page.get(f"/?q=tag_01:0.5 -tag_02:0.5&size=12{more}").text for more in ("", "&t=0.9")]
    first, second = (re.findall(r'id="card-(\d+)"', one) for one in pages)
    assert first == second != []
    assert f"The search finds {len(first)} images." in text(pages[0])
    with database.read() as connection:
        (batch,) = read_tag_batches(connection, model, resolve(model, TAGS, Policy(100)))
    every = int((batch.tag_ids == 1).sum())
    assert 12 < every < 24
    shown = [
        re.findall(r'id="card-(\d+)"', page.get(f"/?q=tag_01:0.01&size=12&seed={seed}").text) for seed in (1, 2, 3)
    ]
    assert [len(one) for one in shown] == [12, every - 12, 12]
    assert shown[2] == shown[0]
    assert not set(shown[0]) & set(shown[1])
    assert "start tagonce review --model other" in page.get("/?q=model:other tag_01").text
    wrong = page.get("/?q=((")
    assert wrong.status_code == 400
    assert "bracket" in wrong.text


def test_thumbnails_are_pictures_and_what_has_none_says_why(
    page: TestClient, database: Database, model: Model, ids: list[int], photos: list[Path]
) -> None:
    answer = page.get(f"/thumb/{ids[0]}")
    assert (answer.headers["content-type"], answer.content[8:12]) == ("image/webp", b"WEBP")
    photos[1].unlink()
    gone = page.get(f"/thumb/{ids[1]}")
    assert gone.headers["content-type"].startswith("image/svg+xml")
    assert "missing" in gone.text
    with database.write() as connection:  # a process that opens it may die
        connection.execute(predictions.delete().where(predictions.c.image_id == ids[2]))
        results.save(connection, model.id, [], [Failure(ids[2], "1", Reason.CRASHED, "")])
    assert "crashed" in page.get(f"/thumb/{ids[2]}").text
    assert page.get("/thumb/999999").status_code == 404


def test_a_picture_that_a_slow_storage_has_not_sent_is_asked_for_again(
    page: TestClient, site: Site, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The placeholder has a width that no picture has, which the script knows, too."""
    monkeypatch.setattr(picture, "_WAIT_SECONDS", 0.2)
    sent = threading.Event()
    kept = site.thumbnails.get

    def get(*args: object, **options: object) -> bytes:
        sent.wait(20)
        return kept(*args, **options)

    monkeypatch.setattr(site.thumbnails, "get", get)
    answer = page.get(f"/thumb/{ids[0]}")
    assert "still being fetched" in answer.text
    assert f'width="{picture.WIDTH_TO_COME}"' in answer.text
    assert picture.WIDTH_TO_COME > PREVIEW_SIZE
    assert f"naturalWidth === {picture.WIDTH_TO_COME}" in page.get("/static/review.js").text
    sent.set()
    assert page.get(f"/thumb/{ids[0]}").headers["content-type"] == "image/webp"


def test_the_overview_tells_how_far_it_is_and_what_failed(page: TestClient) -> None:
    shown = page.get("/overview")
    assert f"done {IMAGES}" in text(shown.text)
    assert "it is <b>broken</b>" in text(shown.text)  # text, not markup
    assert "<b>broken" not in shown.text
    assert "it is" in page.get("/overview?reason=corrupt").text
    assert "it is" not in page.get("/overview?reason=missing").text


def test_counts_are_kept_for_the_next_start(page: TestClient, site: Site) -> None:
    again = Site(site.database, site.model, site.settings, site.thumbnails)
    assert again.collection.distribution is not None
    assert again.collection.distribution.images == IMAGES
    before = site.collection.distribution
    assert page.post("/recount", data={"back": "/overview"}, headers=OURS).url.path == "/overview"
    site.collection.wait()
    assert site.collection.distribution is not before


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # it never reaches the database
@pytest.mark.parametrize(
    ("path", "status"),
    [
        *(
            (path, 400)
            for path in ("/?t=2", "/?t=0.001", "/?profile=none", "/?tag.none=0.5", "/?c.none=0.5", "/?seed=x")
        ),
        *(
            (path, 404)
            for path in (
                "/tag/20",
                "/tag/-1",
                "/tag/x",
                "/image/999999",
                "/thumb/" + "9" * 5000,
                "/nothing",
                "/static/../app.py",
            )
        ),
        ("/static/%2e%2e/app.py", 404),
        ("/label", 405),
    ],
)
def test_what_cannot_be_asked_is_answered_with_a_sentence(page: TestClient, path: str, status: int) -> None:
    answer = page.get(path)
    assert answer.status_code == status
    assert len(text(answer.text)) > 10


def test_a_picture_to_try_needs_the_model_of_the_scores(page: TestClient, photos: list[Path]) -> None:
    """No model with the name `tiny` can be loaded."""
    with photos[0].open("rb") as file:
        answer = page.post("/try", files={"file": ("a.png", file)}, headers=OURS)
    assert answer.status_code == 500
    assert "There is no model 'tiny'" in text(answer.text)
    empty = page.post("/try", files={"file": ("a.png", b"")}, headers=OURS)
    assert empty.status_code == 400
    assert "No picture came along" in text(empty.text)


def test_no_statement_takes_longer_than_a_page_waits(migrated_postgres_url: str) -> None:
    """Except for counting the collection, which runs in the background."""
    database = open_database(migrated_postgres_url)
    database.limit_statements(1)
    with pytest.raises(TransientError, match="stopped a statement that took too long"), database.read() as connection:
        connection.execute(sql("select pg_sleep(5)"))
    with database.read() as connection:
        lift_statement_timeout(connection)
        assert connection.scalar(sql("select 1 from pg_sleep(1.2)")) == 1
    database.close()


def endless() -> Select[tuple[int]]:
    """1, 2, 3, ..."""
    first = select(literal(1).label("i")).cte("n", recursive=True)
    return select(first.union_all(select(first.c.i + 1)).c.i)


@on_sqlite
def test_on_sqlite_no_statement_takes_longer_either(database: Database) -> None:
    """The next one of the same connection has all of its time again."""
    database.limit_statements(1)
    with pytest.raises(TransientError, match="stopped a statement that took too long"), database.read() as connection:
        connection.execute(select(func.count()).select_from(endless().subquery()))
    with database.read() as connection:
        assert len(connection.execute(endless().limit(1000)).all()) == 1000


@on_sqlite
@pytest.mark.parametrize("lifted", [False, True])
def test_on_sqlite_the_time_between_rows_counts_unless_the_limit_is_lifted(database: Database, lifted: bool) -> None:
    database.limit_statements(1)
    expected = nullcontext() if lifted else pytest.raises(TransientError, match="took too long")
    with expected, database.read() as connection:
        if lifted:
            lift_statement_timeout(connection)
        batches = stream_in_order(connection, endless().limit(50_000), 10_000)
        assert len(next(iter(batches))) == 10_000
        time.sleep(1.1)
        assert sum(map(len, batches)) == 40_000
