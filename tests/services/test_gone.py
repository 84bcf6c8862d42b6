"""A reference is marked as gone, seen again, moved and forgotten, on both databases."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select

from db import sampling, schema
from db.arrays.id_set import IdSet
from db.database import Database, open_database
from db.errors import Reason, SourceError
from db.export.tagged_images import count_images, uri_range
from db.ledger import failures, forget, gone, images, moved_labels, results, run_progress
from db.ledger.images import Reference
from db.ledger.models import Model
from db.ledger.results import Failure
from db.names.match_images import ImageIndex, by_path
from db.names.uris import file_uri
from db.policy.policies import Cut
from db.read import distribution
from db.read.histograms import histogram
from db.read.tag_batches import read_tag_batches
from db.read.tag_counts import tag_counts
from db.sampling.near_threshold import around
from db.scope import Gone
from db.search import execute
from db.search.tree import Reaches
from db.truth import labels
from db.truth.labels import Drawn
from producer import mark_gone, sources
from producer.storage.s3_client import s3_client
from tests.fixtures.photos import MAKER
from tests.services.conftest import make_model
from tests.services.test_judging import store
from tests.services.test_results import prediction, scores

URIS = [f"s3://b/{number}.jpg" for number in range(5)]
ROWS = [{1: 9000, 2: 5000}, {1: 8000}, {1: 7000}, {2: 6000}, {}]


@pytest.fixture
def ids(database: Database, model: Model) -> list[int]:
    """Five tagged images, of which the first and the fourth are gone."""
    found = store(database, model, URIS, ROWS)
    mark(database, found[0], found[3])
    return found


def mark(database: Database, *image_ids: int) -> int:
    with database.write() as connection:
        return gone.mark(connection, image_ids)


def marked(database: Database) -> set[int]:
    with database.read() as connection:
        return set(connection.scalars(select(schema.gone.c.image_id)))


def register(database: Database, model: Model, *found: Reference, seen: IdSet | None = None) -> list[int]:
    with database.write() as connection:
        return images.register(connection, found, model.id, seen=seen)


def rows_of(database: Database, table: Any) -> int:
    with database.read() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


# ── the scope of queries ──

LEFT = {Gone.EXCLUDE: [1, 2, 4], Gone.INCLUDE: [0, 1, 2, 3, 4], Gone.ONLY: [0, 3]}


@pytest.mark.parametrize("which", Gone)
def test_every_reader_leaves_them_out_unless_it_is_told_otherwise(
    database: Database, model: Model, ids: list[int], which: Gone
) -> None:
    left = [ids[place] for place in LEFT[which]]
    with_tag = [ids[place] for place in LEFT[which] if 1 in ROWS[place]]
    uniform = Cut(np.full(20, 100, np.int16), 100)
    ranked = Cut(np.full(20, 100, np.int16), 100, top=5)
    tree = Reaches((1,), (100,))
    with database.read(gone=which) as connection:
        for cut in (uniform, ranked):
            assert [one for batch in read_tag_batches(connection, model, cut) for one in batch.image_ids] == left
            counted = {one.tag: one.images for one in tag_counts(connection, model, cut)}
            assert counted["tag_01"] == len(with_tag)
        assert count_images(connection, model) == count_images(connection, model, under="s3://b/") == len(left)
        assert uri_range(connection, model) == (URIS[LEFT[which][0]], URIS[LEFT[which][-1]])
        assert [hit.image_id for hit in execute.search(connection, model, tree)] == with_tag
        assert execute.count(connection, model, tree) == len(with_tag)
        found = histogram(connection, model, 1, 10)
        assert (found.images, sum(found.counts)) == (len(left), len(with_tag))
        spread = distribution.count_scores(connection, model)
        assert (spread.images, int(spread.reaching[1][10])) == (len(left), len(with_tag))
        assert sorted(sampling.random_ids(connection, model, 9, seed=1)) == left
        assert sorted(one.image_id for one in sampling.with_tag(connection, model, 1, 100, 9999, 9, 1)) == with_tag
        above, below = around(connection, model, 1, 7500, 9)
        assert sorted(one.image_id for one in (*above, *below)) == with_tag
        index = ImageIndex(connection)
        assert [one.tolist() for one in index.find([by_path(uri, Path("/")) for uri in URIS])] == [
            [one] if one in left else [] for one in ids
        ]
        progress = run_progress.progress(connection, model.id)
        assert (progress.images, progress.done, progress.gone) == (len(left), len(left), 2)
        assert run_progress.predicted(connection, model.id) == len(left)


def test_their_labels_do_not_count(database: Database, model: Model, ids: list[int]) -> None:
    with database.write() as connection:
        for image_id in ids[:3]:
            labels.save(connection, model, image_id, 1, True, by="ann", drawn=Drawn.RANDOM)
    with database.read() as connection:
        assert labels.of_tag(connection, model, 1).image_ids.tolist() == ids[1:3]
        verdicts = labels.every(connection, model)
        assert (verdicts.image_ids.tolist(), verdicts.undecided, verdicts.drawn) == (ids[1:3], 0, {"random": 2})
        assert labels.counts(connection, model).labels == 2
        assert labels.people(connection, model) == {"ann": 2}
    with database.read(gone=Gone.INCLUDE) as connection:
        assert labels.counts(connection, model).labels == 3


def test_one_that_is_gone_is_neither_pending_nor_failed(
    database: Database, model: Model, registered: Callable[..., list[int]]
) -> None:
    """It is not sent, not taken by a worker and not tried again."""
    first, second, third = registered(3)
    with database.write() as connection:
        results.save(connection, model.id, [], [Failure(third, "1", Reason.TIMEOUT, "no")])
    mark(database, second, third)
    with database.write() as connection:
        assert images.pending_after(connection, model.id, 0, 9) == [first]
        assert [one.id for one in images.pending_among(connection, [first, second, third], model.id)] == [first]
        progress = run_progress.progress(connection, model.id)
        assert (progress.pending, progress.failed, progress.gone) == (1, {}, 2)
        assert list(failures.latest(connection, model.id, None)) == []
        assert results.clear_failures(connection, model.id) == []


# ── marked, and seen again ──


def test_marking_twice_is_marking_once(database: Database, ids: list[int]) -> None:
    assert mark(database, ids[0], ids[1], 10**6) == 1
    assert marked(database) == {ids[0], ids[1], ids[3]}


@pytest.mark.parametrize("collecting", [False, True])
def test_one_that_is_seen_again_is_there_again(
    database: Database, model: Model, ids: list[int], collecting: bool
) -> None:
    """Unchanged it is done as before; changed it is pending. An entry of a list without a file does not unmark it."""
    seen = IdSet() if collecting else None
    assert register(database, model, Reference(URIS[0], "", None), seen=seen) == []
    assert marked(database) == {ids[0], ids[3]}
    found = (Reference(URIS[0], "1", 10), Reference(URIS[3], "2", 10), Reference("s3://b/new", "1", 10))
    pending = register(database, model, *found, seen=seen)
    assert pending[0] == ids[3]
    assert len(pending) == 2
    assert marked(database) == set()
    assert seen is None or list(seen) == sorted({ids[0], *pending})


def test_what_a_producer_has_seen_it_says_whoever_registered_it(database: Database, model: Model) -> None:
    """The ids of new, known and pending images, and of those that another producer inserts at the same moment."""
    found = [Reference(f"s3://b/{number:05}", "1", 1) for number in range(300)]
    sets = [IdSet(), IdSet()]
    barrier = threading.Barrier(2)

    def run(place: int) -> None:
        barrier.wait()
        register(database, model, *found, seen=sets[place])

    threads = [threading.Thread(target=run, args=(place,)) for place in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as connection:
        expected = sorted(connection.scalars(select(schema.images.c.id)))
    assert [list(one) for one in sets] == [expected, expected]


def listed(database: Database, model: Model, folder: Path) -> tuple[IdSet, int]:
    """As in a run: the ids of a listing, and the last image before it."""
    last, seen = mark_gone.newest(database), IdSet()
    register(database, model, *sources.references(str(folder)), seen=seen)
    return seen, last


def place_of(folder: Path) -> str:
    place = sources.place(str(folder))
    assert place is not None
    return place


def test_a_listing_marks_what_it_no_longer_has_and_nothing_else(
    database: Database, model: Model, make_photos: MAKER, tmp_path: Path
) -> None:
    """Not images elsewhere, not existing files that were skipped, and not images registered after its beginning."""
    photos = make_photos(7)
    folder, beside = photos[0].parent, tmp_path / "photos2"
    beside.mkdir()
    hidden, odd = folder / ".hidden.jpg", folder / "picture.dat"
    for path in (hidden, odd):
        path.write_bytes(photos[0].read_bytes())
    strangers = [file_uri(str(beside / "a.jpg")), "s3://b/a.jpg", file_uri(str(hidden)), file_uri(str(odd))]
    register(database, model, *(Reference(uri, "1", 1) for uri in strangers))
    listed(database, model, folder)
    photos[0].unlink()
    photos[1].rename(folder / "renamed.jpg")
    seen, last = listed(database, model, folder)
    register(database, model, Reference(file_uri(str(folder / "by-another.jpg")), "1", 1))

    found = mark_gone.mark(database, place_of(folder), seen, last=last)
    assert (found.registered, found.gone, found.refused) == (11, 2, False)
    with database.read() as connection:
        query = select(schema.images.c.uri).where(schema.images.c.id.in_(marked(database)))
        assert set(connection.scalars(query)) == {file_uri(str(photos[0])), file_uri(str(photos[1]))}
    # A second listing marks nothing. A file that is put back is present again.
    assert mark_gone.mark(database, place_of(folder), seen, last=last).gone == 0
    photos[0].write_bytes(b"another one")
    listed(database, model, folder)
    assert len(marked(database)) == 1


def test_more_than_half_of_a_place_is_not_believed(database: Database, model: Model, make_photos: MAKER) -> None:
    photos = make_photos(5)
    folder = photos[0].parent
    listed(database, model, folder)
    for photo in photos[:3]:
        photo.unlink()
    seen, last = listed(database, model, folder)
    found = mark_gone.mark(database, place_of(folder), seen, last=last)
    assert (found.registered, found.refused) == (5, True)
    assert marked(database) == set()
    found = mark_gone.mark(database, place_of(folder), seen, last=last, even_most=True)
    assert (found.gone, found.refused) == (3, False)
    assert len(marked(database)) == 3


def test_a_place_is_a_folder_or_a_prefix(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.jpg\n")
    assert sources.place(str(tmp_path)) == file_uri(str(tmp_path)) + "/"
    assert sources.place("S3://bucket/2024") == "s3://bucket/2024"
    assert [sources.place(one) for one in ("-", str(tmp_path / "list.txt"), str(tmp_path / "no.jpg"))] == [None] * 3


def test_objects_that_are_gone_are_marked(sqlite_database: Database, bucket: str) -> None:
    """An existing object whose name is not that of an image is not listed and stays. An unreachable bucket marks
    nothing.
    """
    database, model = sqlite_database, make_model(sqlite_database)
    client = s3_client()
    for key in ("a.jpg", "b.jpg", "c.jpg", "odd"):
        client.put_object(Bucket=bucket, Key=key, Body=key.encode())
    place = f"s3://{bucket}/"
    register(database, model, *sources.references(place), Reference(f"{place}odd", "1", 3))
    client.delete_object(Bucket=bucket, Key="b.jpg")
    client.close()
    seen, last = IdSet(), mark_gone.newest(database)
    register(database, model, *sources.references(place), seen=seen)
    assert mark_gone.mark(database, place, seen, last=last).gone == 1
    assert mark_gone.mark(database, place, IdSet(), last=last).gone == 0
    register(database, model, Reference("s3://no-such-bucket-here/a.jpg", "1", 3))
    with pytest.raises(SourceError):
        list(sources.references("s3://no-such-bucket-here/"))


@pytest.fixture
def sqlite_database(migrated_sqlite_url: str) -> Any:
    opened = open_database(migrated_sqlite_url)
    yield opened
    opened.close()


# ── moved: known by content ──


def judge(database: Database, model: Model, image_id: int, tag_id: int, is_right: bool, by: str = "ann") -> None:
    with database.write() as connection:
        labels.save(connection, model, image_id, tag_id, is_right, by=by, drawn=Drawn.LINE)


def judged(database: Database) -> set[tuple[int, str, str, bool]]:
    with database.read() as connection:
        rows = connection.execute(select(schema.labels)).all()
    return {(row.image_id, row.tag, row.judged_by, row.is_right) for row in rows}


def follow(database: Database) -> int:
    with database.write() as connection:
        return moved_labels.move_labels(connection)


def test_labels_go_along_whichever_comes_first(database: Database, model: Model) -> None:
    """The old image is marked and then the new one is tagged, or in the other order; then the file is moved back."""
    content = [b"a" * 32]
    (old,) = store(database, model, ["s3://b/old.jpg"], ROWS[:1], content)
    judge(database, model, old, 1, True)
    judge(database, model, old, 2, False, "bob")
    mark(database, old)
    assert follow(database) == 0
    (new,) = store(database, model, ["s3://b/new.jpg"], ROWS[:1], content)
    expected = {(new, "tag_01", "ann", True), (new, "tag_02", "bob", False)}
    assert judged(database) == expected
    assert follow(database) == 0
    with database.read() as connection:
        assert labels.of_tag(connection, model, 1).image_ids.tolist() == [new]

    # Moved back: the old image is seen again, and then the new one is gone.
    register(database, model, Reference("s3://b/old.jpg", "1", 10))
    mark(database, new)
    assert follow(database) == 2
    assert judged(database) == {(old, tag, by, right) for _, tag, by, right in expected}


def test_what_a_person_said_of_the_new_one_stays_and_what_was_taken_back_does_not_return(
    database: Database, model: Model
) -> None:
    content = [b"a" * 32] * 2
    old, new = store(database, model, URIS[:2], [ROWS[0], ROWS[0]], content)
    judge(database, model, old, 1, True)
    judge(database, model, new, 1, False)
    judge(database, model, old, 2, True)
    mark(database, old)
    follow(database)
    assert judged(database) == {(new, "tag_01", "ann", False), (new, "tag_02", "ann", True)}
    with database.write() as connection:
        labels.forget(connection, model, new, 2, by="ann")
    assert follow(database) == 0
    assert judged(database) == {(new, "tag_01", "ann", False)}


def test_labels_stay_where_the_content_is_another_one_or_the_picture_is_there(database: Database, model: Model) -> None:
    kept, copy, other = store(database, model, URIS[:3], [ROWS[0]] * 3, [b"a" * 32, b"a" * 32, b"b" * 32])
    judge(database, model, kept, 1, True)
    judge(database, model, other, 1, True)
    mark(database, other, copy)
    assert follow(database) == 0
    assert judged(database) == {(kept, "tag_01", "ann", True), (other, "tag_01", "ann", True)}


# ── forgotten ──


def everything(database: Database) -> list[int]:
    tables = (schema.images, schema.predictions, schema.failures, schema.tag_scores, schema.labels, schema.gone)
    return [rows_of(database, table) for table in tables]


def delete(database: Database, *places: str, only_gone: bool = False, keep_labels: bool = False) -> int:
    where = forget.selection(places, only_gone=only_gone)
    return forget.forget(database, where, keep_labels=keep_labels)


def test_all_that_belongs_to_an_image_goes_with_it(
    database: Database, model: Model, other_model: Model, ids: list[int]
) -> None:
    """Its rows of every model are deleted. Rows of other images stay."""
    store(database, other_model, URIS[:2], [{3: 4000}, {3: 5000}])
    mark(database, ids[0])
    with database.write() as connection:
        results.save(connection, other_model.id, [], [Failure(ids[3], "1", Reason.CORRUPT, "no")])
    judge(database, model, ids[0], 1, True)
    judge(database, model, ids[1], 1, True)
    assert everything(database) == [5, 7, 1, 7, 2, 2]
    where = forget.selection([], only_gone=True)
    with database.read() as connection:
        plan = forget.plan(connection, where)
    assert (plan.images, plan.predictions, plan.failures, plan.labels, plan.labelled) == (2, 3, 1, 1, 1)
    assert plan.examples == (URIS[0], URIS[3])
    assert delete(database, only_gone=True) == 2
    assert everything(database) == [3, 4, 0, 3, 1, 0]
    assert delete(database, "s3://b/1", "s3://c/") == 1
    assert everything(database) == [2, 2, 0, 1, 0, 0]
    assert delete(database, "s3://c/") == 0


def test_what_people_judged_may_stay_and_waits_for_its_content(database: Database, model: Model) -> None:
    old, _unlabelled = store(database, model, URIS[:2], ROWS[:2], [b"a" * 32, b"b" * 32])
    judge(database, model, old, 1, True)
    assert delete(database, "s3://b/", keep_labels=True) == 1
    assert everything(database) == [1, 0, 0, 0, 1, 1]
    # Under its old uri the image is pending. Under a new uri it has its labels as soon as it has scores.
    (new,) = store(database, model, ["s3://c/moved.jpg"], ROWS[:1], [b"a" * 32])
    assert judged(database) == {(new, "tag_01", "ann", True)}
    assert register(database, model, Reference(URIS[0], "1", 10)) == [old]


def test_interrupted_it_goes_on(database: Database, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forget, "AT_ONCE", 2)
    store(database, model, URIS, ROWS)

    def stop(_images: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forget.forget(database, forget.selection(["s3://b/"], only_gone=False), keep_labels=False, on_progress=stop)
    assert everything(database)[:2] == [3, 3]
    assert delete(database, "s3://b/") == 3
    assert everything(database) == [0] * 6


def test_one_that_is_seen_again_meanwhile_is_not_forgotten(
    database: Database, model: Model, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forget, "AT_ONCE", 1)
    where = forget.selection([], only_gone=True)
    once = iter([lambda: register(database, model, Reference(URIS[3], "1", 10))])
    deleted = forget.forget(database, where, keep_labels=False, on_progress=lambda _: next(once, list)())
    assert deleted == 1
    assert everything(database)[0] == 4


def test_chunks_that_name_what_was_forgotten_are_harmless(database: Database, model: Model, ids: list[int]) -> None:
    """A queued chunk has nothing to do. The results of a chunk that a worker holds are dropped."""
    delete(database, "s3://b/")
    with database.write() as connection:
        assert images.pending_among(connection, ids, model.id) == []
        assert gone.mark(connection, ids) == 0
        results.save(connection, model.id, [], [Failure(ids[0], "1", Reason.MISSING, "no")])
    assert everything(database) == [0] * 6
    with database.write() as connection:
        results.save(connection, model.id, [prediction(one, scores((1, 5000))) for one in ids], [])
    assert everything(database) == [0] * 6
