"""Ground truth compared with stored scores, on both databases: matching, counting, and the commands."""

import csv
import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.metrics import (
    f1_score,
    multilabel_confusion_matrix,
    precision_recall_curve,
    precision_recall_fscore_support,
)

from db.database import Database, open_database
from db.errors import SourceError, ThresholdError
from db.ledger import images, models, results
from db.ledger.images import Reference
from db.ledger.models import Model
from db.ledger.results import Prediction
from db.names.uris import file_uri
from db.policy import profiles
from db.policy.policies import Policy, resolve
from db.read.histograms import histogram
from db.read.tag_batches import read_tag_batches
from db.schema import images as images_table
from db.scores import NEVER, SCALE, Scores
from db.truth.calibration import By, Goal, calibrate, grid
from db.truth.evaluation import Confusion, evaluate, micro
from db.truth.load_truth import describe, read_truth
from db.truth.mistakes import find_mistakes
from db.truth.truth import Found, Truth
from tests.fixtures.command import Outcome
from tests.fixtures.examples import up_to
from tests.services.conftest import TAGS, make_model

FLOOR = 100
IMAGES = 6
Rows = list[dict[int, int]]
"""Tag id to score, one dictionary per image."""

thoroughly = hypothesis_settings(
    max_examples=up_to(25), deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)
some_scores = st.sampled_from([FLOOR, 3499, 3500, SCALE]) | st.integers(FLOOR, SCALE)
some_rows = st.lists(st.dictionaries(st.integers(0, 4), some_scores), min_size=IMAGES, max_size=IMAGES)
some_truth = st.lists(st.none() | st.sets(st.integers(0, 5)), min_size=IMAGES, max_size=IMAGES)


def store(
    database: Database, model: Model, uris: list[str], rows: Rows, sha256: list[bytes] | None = None
) -> list[int]:
    """Register images and store their scores. Returns their ids."""
    with database.write() as connection:
        images.register(connection, [Reference(uri, "1", 10) for uri in uris], model.id)
        found = {row.uri: row.id for row in connection.execute(images_table.select())}
        ids = [found[uri] for uri in uris]
        done = []
        for number, (image_id, row) in enumerate(zip(ids, rows, strict=True)):
            tags = sorted(row, key=lambda tag: (row[tag], tag))
            scores = Scores(np.array(tags, np.int16), np.array([row[tag] for tag in tags], np.int16))
            content = sha256[number] if sha256 else number.to_bytes(32)
            done.append(Prediction(image_id, "1", 10, 640, 480, "jpeg", content, scores))
        results.save(connection, model.id, done, [])
    return ids


def truth_of(ids: list[int], said: list[set[int] | None]) -> Truth:
    """The truth as arrays. None for an image without truth."""
    known = [(image_id, sorted(tags)) for image_id, tags in zip(ids, said, strict=True) if tags is not None]
    sizes = [len(tags) for _, tags in known]
    return Truth(
        "test",
        np.array([image_id for image_id, _ in known], np.int64),
        np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64),
        np.array([tag for _, tags in known for tag in tags], np.int16),
        Found(),
    )


def dense(rows: Rows, said: list[set[int] | None]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """(labelled images, tags) scores, 0 if none is stored, and whether the truth has the tag."""
    labelled = [(row, tags) for row, tags in zip(rows, said, strict=True) if tags is not None]
    scores = np.array([[row.get(tag, 0) for tag in range(len(TAGS))] for row, _ in labelled])
    given_ = np.array([[tag in tags for tag in range(len(TAGS))] for _, tags in labelled])
    return scores.reshape(-1, len(TAGS)), given_.reshape(-1, len(TAGS))


def same(found: Confusion, truth: npt.NDArray[np.bool_], kept: npt.NDArray[np.bool_]) -> None:
    ours = np.stack([found.tn, found.fp, found.fn, found.tp], axis=1).reshape(-1, 2, 2)
    np.testing.assert_array_equal(ours, multilabel_confusion_matrix(truth, kept))


# ── counting ──


def test_evaluation_agrees_with_scikit_learn(database: Database, model: Model) -> None:
    """At one threshold, with thresholds by tag, with top-k and with MCut. Images without truth do not count."""
    uris = [f"s3://b/{number}" for number in range(IMAGES)]
    policies = [
        Policy(default=5000, tags={"tag_01": 200, "tag_02": NEVER}),
        Policy(default=FLOOR, top=2),
        Policy(mcut=True),
    ]

    @thoroughly
    @given(some_rows, some_truth)
    def check(rows: Rows, said: list[set[int] | None]) -> None:
        ids = store(database, model, uris, rows)
        scores, truth = dense(rows, said)
        with database.read() as connection:
            tags = models.tag_names(connection, model.id)
            cuts = [resolve(model, tags, policy) for policy in policies]
            found = evaluate(connection, model, truth_of(ids, said), [3500, FLOOR, SCALE], cuts)
            (batch,) = read_tag_batches(connection, model, cuts[2])
        by_mcut = np.zeros((IMAGES, len(TAGS)), bool)
        by_mcut[batch.rows, batch.tag_ids] = True
        assert found.counts.images == len(truth)
        np.testing.assert_array_equal(found.counts.support, truth.sum(axis=0))
        if not len(truth):
            return
        for place, threshold in enumerate([FLOOR, 3500, SCALE]):
            kept = scores >= threshold
            same(found.counts.of(slice(None)).at(slice(None), place), truth, kept)
            expected = precision_recall_fscore_support(truth, kept, average="micro", zero_division=0)[:3]
            totals = micro(found.counts.micro())
            ours = [totals.precision[place], totals.recall[place], totals.f1[place]]
            np.testing.assert_allclose(ours, expected)
        same(found.cuts[0], truth, (scores >= cuts[0].scores))
        rank = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)
        same(found.cuts[1], truth, (rank < 2) & (scores >= FLOOR))
        same(found.cuts[2], truth, by_mcut[[tags is not None for tags in said]])

    check()


def test_calibration_finds_the_best_f1_of_scikit_learns_curve(database: Database, model: Model) -> None:
    """Scores are on the grid, so that the thresholds of the curve are those of the grid."""
    rng = np.random.default_rng(3)
    given_ = rng.random((300, len(TAGS))) < 0.3
    scores = np.where(given_, rng.integers(100, 1001, given_.shape), rng.integers(10, 600, given_.shape)) * 10
    rows = [dict(enumerate(row)) for row in scores.tolist()]
    ids = store(database, model, [f"s3://b/{number:04}" for number in range(300)], rows)
    truth = truth_of(ids, [set(np.flatnonzero(row).tolist()) for row in given_])
    with database.read() as connection:
        tags = models.tag_names(connection, model.id)
        counts = evaluate(connection, model, truth, grid(model.floor)).counts
        result = calibrate(counts, tags, Goal(By.F_BETA))
    assert set(result.policy.tags) == {tag.name for tag in TAGS}
    for tag_id, tag in enumerate(TAGS):
        precision, recall, _ = precision_recall_curve(given_[:, tag_id], scores[:, tag_id])
        sums = precision + recall
        best = np.max(np.divide(2 * precision * recall, sums, out=np.zeros_like(sums), where=sums > 0))
        reached = f1_score(given_[:, tag_id], scores[:, tag_id] >= result.policy.tags[tag.name])
        assert reached == pytest.approx(best)


def test_few_labelled_images_among_many_are_looked_up(database: Database, model: Model) -> None:
    """Images far apart are read by id and not by a scan. The numbers are the same."""
    ids = store(database, model, [f"s3://b/{number:03}" for number in range(100)], [{1: 9000}] * 100)
    said: list[set[int] | None] = [None] * 100
    said[0], said[99] = {1}, {2}
    with database.read() as connection:
        counts = evaluate(connection, model, truth_of(ids, said), [5000]).counts
    assert counts.images == 2
    found = counts.of(slice(1, 3)).at(slice(None), 0)
    assert [found.tp.tolist(), found.fp.tolist(), found.fn.tolist(), found.tn.tolist()] == [
        [1, 0],
        [1, 0],
        [0, 1],
        [0, 1],
    ]


def test_a_threshold_below_the_floor_is_refused(database: Database, model: Model) -> None:
    with database.read() as connection, pytest.raises(ThresholdError, match=r"floor of 0\.01"):
        evaluate(connection, model, truth_of([], []), [99])


# ── mistakes ──


def test_mistakes_are_what_a_loop_finds(database: Database, model: Model) -> None:
    uris = [f"s3://b/{number}" for number in range(IMAGES)]

    @thoroughly
    @given(some_rows, some_truth, st.none() | st.sets(st.integers(0, 5)))
    def check(rows: Rows, said: list[set[int] | None], tags: set[int] | None) -> None:
        ids = store(database, model, uris, rows)
        expected = []
        for image_id, uri, row, given_ in zip(ids, uris, rows, said, strict=True):
            if given_ is None:
                continue
            wanted = set(range(len(TAGS))) if tags is None else tags
            for tag in sorted(given_ & wanted):
                if row.get(tag, 0) < 3500:
                    score = row.get(tag)
                    expected.append((image_id, uri, TAGS[tag].name, "given", None if score is None else score / SCALE))
            sure = [tag for tag in sorted((set(row) - given_) & wanted) if row[tag] >= 9000]
            expected += [(image_id, uri, TAGS[tag].name, "missing", row[tag] / SCALE) for tag in sure]
        with database.read() as connection:
            found = list(find_mistakes(connection, model, truth_of(ids, said), below=3500, tags=tags))
            some = images_table.c.uri == uris[2]
            one = list(find_mistakes(connection, model, truth_of(ids, said), below=3500, tags=tags, where=some))
        as_rows = [(each.image_id, each.uri, each.tag, each.kind, each.probability) for each in found]
        assert as_rows == expected
        assert one == [each for each in found if each.uri == uris[2]]

    check()


def test_suspicion_starts_no_lower_than_the_floor(database: Database) -> None:
    high = make_model(database, "high", floor=1000)
    ids = store(database, high, ["s3://b/1"], [{1: 1000}])
    truth = truth_of(ids, [{1, 2}])
    with database.read() as connection:
        assert [(one.tag, one.probability) for one in find_mistakes(connection, high, truth)] == [("tag_02", None)]
        with pytest.raises(ThresholdError, match=r"floor of 0\.1: .*mistakes at 0\.05 cannot be answered"):
            find_mistakes(connection, high, truth, below=500)


# ── matching ──


def read(database: Database, model: Model, source: str | Path) -> tuple[dict[str, list[str]], Truth]:
    """The tags read from a file, by uri."""
    with database.read() as connection:
        truth = read_truth(connection, model, str(source))
        uris = {row.id: row.uri for row in connection.execute(images_table.select())}
    names = [TAGS[tag].name for tag in truth.tag_ids.tolist()]
    ends = truth.offsets.tolist()
    return {
        uris[one]: names[ends[place] : ends[place + 1]] for place, one in enumerate(truth.image_ids.tolist())
    }, truth


@pytest.fixture
def library(database: Database, model: Model, tmp_path: Path) -> dict[str, str]:
    """Images of several kinds of uris, by a short name."""
    short = {
        "local": file_uri(str(tmp_path / "a b" / "1.jpg")),
        "twin": "s3://b/x/1.jpg",
        "deep": "s3://b/x/c/2.png",
        "md5": "s3://b/01/23/0123456789abcdef0123456789abcdef.webp",
        "copy": "s3://b/copies/0123456789abcdef0123456789abcdef.jpg",
        "bare": "s3://b/x/3",
    }
    content = [b"1" * 32, b"1" * 32, *(bytes([number]) * 32 for number in range(4))]
    store(database, model, list(short.values()), [{1: 9000}] * len(short), content)
    return short


def lines(file: Path, *rows: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_references_mean_images(database: Database, model: Model, library: dict[str, str], tmp_path: Path) -> None:
    """By uri, by a path relative to the file's folder, by absolute path, by the end of a uri. Tags are merged."""
    file = lines(
        tmp_path / "t.jsonl",
        {"uri": library["twin"], "tags": ["tag 02", "TAG_01"]},
        {"path": "a b/1.jpg", "tags": ["tag_03"]},
        {"path": str(tmp_path / "a b" / "1.jpg"), "tags": ["tag_03", "tag_04"]},
        {"file_name": "c/2.png", "tags": []},
        {"file_name": "3", "tags": ["tag_05", "no such tag", "other", "other"]},
    )
    found, truth = read(database, model, file)
    assert found == {
        library["local"]: ["tag_03", "tag_04"],
        library["twin"]: ["tag_01", "tag_02"],
        library["deep"]: [],
        library["bare"]: ["tag_05"],
    }
    assert truth.found == Found(entries=5, unknown=(("other", 2), ("no such tag", 1)))
    assert describe(truth) == ["2 tags ignored, which the model does not have: other (2), no such tag (1)."]


def test_what_fits_no_image_or_several_is_counted(
    database: Database, model: Model, library: dict[str, str], tmp_path: Path
) -> None:
    """A named folder must match: `z/2.png` is not `c/2.png`, and the path of another machine is not an end of a uri."""
    file = lines(
        tmp_path / "t.jsonl",
        {"path": "1.jpg", "tags": ["tag_01"]},
        {"path": "z/2.png", "tags": ["tag_01"]},
        {"path": "/elsewhere/c/2.png", "tags": ["tag_01"]},
        {"path": "2.png", "tags": ["tag_01"]},
    )
    found, truth = read(database, model, file)
    assert found == {library["deep"]: ["tag_01"]}
    examples = ("1.jpg", "z/2.png", "/elsewhere/c/2.png")
    assert truth.found == Found(entries=4, unmatched=2, ambiguous=1, examples=examples)
    (line,) = describe(truth)
    assert line.startswith("Left out of 4 references: 2 not in the database, 1 that may mean several images (")
    assert line.endswith("(1.jpg, z/2.png, /elsewhere/c/2.png).")


def test_a_hash_means_every_copy(database: Database, model: Model, library: dict[str, str], tmp_path: Path) -> None:
    """MD5 in the names of boorus, SHA-256 in the database."""
    (tmp_path / "t.csv").write_text(f"md5,tag\n{'0123456789ABCDEF' * 2},tag_01\n{'0' * 32},tag_02\n")
    found, truth = read(database, model, tmp_path / "t.csv")
    assert found == {library["md5"]: ["tag_01"], library["copy"]: ["tag_01"]}
    assert (truth.found.entries, truth.found.unmatched) == (2, 1)
    (tmp_path / "s.csv").write_text(f"{(b'1' * 32).hex()},tag_02\n")
    assert read(database, model, tmp_path / "s.csv")[0] == {library["local"]: ["tag_02"], library["twin"]: ["tag_02"]}


def test_sidecars_beside_the_images_and_in_a_folder(
    database: Database, model: Model, library: dict[str, str], tmp_path: Path
) -> None:
    """In the format of `tagonce export` (1.txt) and of Hydrus (1.jpg.txt, one tag per line)."""
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "1.txt").write_text("tag 01, tag 02\n")
    (tmp_path / "a b" / "1.jpg.txt").write_text("tag_03\ntag_01\n")
    expected = {library["local"]: ["tag_01", "tag_02", "tag_03"]}
    assert read(database, model, "beside")[0] == expected
    assert read(database, model, tmp_path)[0] == expected
    (tmp_path / "out" / "c").mkdir(parents=True)
    (tmp_path / "out" / "c" / "2.txt").write_text("tag 01\n")
    (tmp_path / "out" / "c" / "bad.txt").write_bytes(b"\xff\0\xff")
    found, truth = read(database, model, tmp_path / "out")
    assert found == {library["deep"]: ["tag_01"]}
    assert (truth.found.unreadable, truth.found.examples) == (1, ("c/bad",))


def test_a_folder_of_captions_is_walked_as_sources_are(
    database: Database, model: Model, library: dict[str, str], tmp_path: Path
) -> None:
    """Through links, each folder once, with suffixes in any case. Hidden files are skipped."""
    (tmp_path / "elsewhere" / "c").mkdir(parents=True)
    (tmp_path / "elsewhere" / "c" / "2.TXT").write_text("tag 01\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "c").symlink_to(tmp_path / "elsewhere" / "c")
    (tmp_path / "out" / "loop").symlink_to(tmp_path / "out")
    (tmp_path / "out" / ".cache").mkdir()
    (tmp_path / "out" / ".cache" / "1.txt").write_text("tag 02\n")
    _found, truth = read(database, model, tmp_path / "out")
    assert truth.found.entries == 1


def test_captions_beside_names_that_are_no_text(database: Database, model: Model, tmp_path: Path) -> None:
    """Names need not be UTF-8, and macOS writes accents as separate characters."""
    names = [os.fsdecode(b"\xff"), unicodedata.normalize("NFC", "é")]
    store(database, model, [file_uri(str(tmp_path / f"{name}.jpg")) for name in names], [{}, {}])
    (tmp_path / f"{names[0]}.txt").write_text("tag_01")
    (tmp_path / (unicodedata.normalize("NFD", names[1]) + ".txt")).write_text("tag_02")
    found, _ = read(database, model, "beside")
    assert sorted(found.values()) == [["tag_01"], ["tag_02"]]


@pytest.mark.parametrize(
    ("tags", "expected", "spaced", "unknown"),
    [
        ("tag_01 tag_02", ["tag_01", "tag_02"], 1, 0),
        ("tag_01 tag_02 other", ["tag_01", "tag_02"], 1, 1),
        ("tag 01", ["tag_01"], 0, 0),
        (["tag_01 tag_02", "tag_03"], ["tag_03"], 0, 1),
        ("tag_01 tag_02, tag_03", ["tag_03"], 0, 1),
    ],
)
def test_tags_between_spaces_are_split_where_the_whole_is_no_tag(
    database: Database, model: Model, library: dict[str, str], tmp_path: Path, tags: object, expected: list[str],
    spaced: int, unknown: int,
) -> None:  # fmt: skip
    """Boorus separate `tags` by spaces. In a list, or between commas, spaces are part of a tag."""
    found, truth = read(database, model, lines(tmp_path / "t.jsonl", {"path": "a b/1.jpg", "tags": tags}))
    assert found == {library["local"]: expected}
    assert (truth.found.spaced, len(truth.found.unknown)) == (spaced, unknown)
    said = "1 text without commas read as tags between spaces, for example that of a b/1.jpg."
    assert (said in describe(truth)) is bool(spaced)


def test_a_truth_of_unknown_tags_is_refused(
    database: Database, model: Model, library: dict[str, str], tmp_path: Path
) -> None:
    """A recall of 0 would describe the file and not the model. For a model of few tags, few known tags are enough."""
    sentence = lines(tmp_path / "s.jsonl", {"path": "a b/1.jpg", "caption": "a photograph of a cat"})
    with pytest.raises(SourceError, match=r"1 of 1 tag in .* are not among the 20 of tiny, for example a photo"):
        read(database, model, sentence)
    many = [f"other_{number}" for number in range(200)]
    with pytest.raises(SourceError, match="200 of 201 tags"):
        read(database, model, lines(tmp_path / "m.jsonl", {"path": "a b/1.jpg", "tags": ["tag_01", *many]}))
    named = lines(tmp_path / "n.jsonl", {"path": "a b/1.jpg", "tags": ["tag_01", "tag_02", *many]})
    assert len(read(database, model, named)[1].found.unknown) == 200
    nothing = lines(tmp_path / "e.jsonl", {"path": "a b/1.jpg", "tags": []})
    assert not read(database, model, nothing)[1].found.unknown


def test_sidecars_whose_names_are_no_utf_8(database: Database, model: Model, tmp_path: Path) -> None:
    image = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    image.with_suffix(".txt").write_text("tag_01\n")
    store(database, model, [file_uri(str(image))], [{1: 9000}])
    expected = {file_uri(str(image)): ["tag_01"]}
    assert read(database, model, "beside")[0] == expected
    (tmp_path / "elsewhere").mkdir()
    image.with_suffix(".txt").rename(tmp_path / "elsewhere" / image.with_suffix(".txt").name)
    assert read(database, model, tmp_path / "elsewhere")[0] == expected


def test_truth_of_no_image_is_refused(
    database: Database, model: Model, library: dict[str, str], tmp_path: Path
) -> None:
    file = lines(tmp_path / "t.jsonl", {"path": "nothing.jpg", "tags": []})
    (tmp_path / "empty.csv").touch()
    with database.read() as connection:
        for source, words in (
            (file, "None of 1 reference in .* for example nothing.jpg"),
            (tmp_path / "empty.csv", "names no image"),
            ("beside", "has a .txt file beside it"),
        ):
            with pytest.raises(SourceError, match=words):
                read_truth(connection, model, str(source))


def test_a_long_table_in_any_order_counts_together(database: Database, model: Model, tmp_path: Path) -> None:
    """Rows of 60 images in random order, some twice."""
    rng = np.random.default_rng(5)
    uris = [f"s3://b/{number:04}.jpg" for number in range(60)]
    store(database, model, uris, [{}] * 60)
    pairs = [(uris[image], f"tag_{tag:02}") for image in range(60) for tag in range(20) if (image * 7 + tag) % 3 == 0]
    rows = [pairs[place] for place in rng.permutation(np.repeat(np.arange(len(pairs)), 2))]
    (tmp_path / "t.csv").write_text("uri,tag\n" + "".join(f"{uri},{tag}\n" for uri, tag in rows))
    found, _ = read(database, model, tmp_path / "t.csv")
    assert found == {uri: sorted(tag for one, tag in pairs if one == uri) for uri in uris}


# ── a tag over the collection ──


def test_a_histogram_counts_each_image_once(database: Database, model: Model, other_model: Model) -> None:
    uris = [f"s3://b/{number}" for number in range(7)]
    scores = [FLOOR, 2499, 2500, 5000, 9999, SCALE]
    store(database, model, uris, [{3: score, 4: 500} for score in scores] + [{4: 200}])
    store(database, other_model, uris[:1], [{3: 7000}])
    with database.read() as connection:
        found = histogram(connection, model, 3, 4)
        assert (found.images, found.counts, found.not_stored) == (7, [2, 1, 1, 2], 1)
        assert found.edges == [0, 0.25, 0.5, 0.75, 1]
        every = histogram(connection, model, 3, SCALE).counts
        assert [place for place, images_ in enumerate(every) if images_] == [100, 2499, 2500, 5000, 9999]
        assert histogram(connection, model, 9, 1).counts == [0]


# ── commands ──


@pytest.fixture
def judged(database_url: str, tmp_path: Path) -> dict[str, Any]:
    """400 images with scores that partly agree with `truth.jsonl`, and the environment of commands."""
    rng = np.random.default_rng(11)
    given_ = rng.random((400, len(TAGS))) < np.linspace(0.5, 0.02, len(TAGS))
    scores = np.where(given_, rng.integers(1500, SCALE + 1, given_.shape), rng.integers(0, 4500, given_.shape))
    database = open_database(database_url)
    model = make_model(database)
    rows = [{tag: score for tag, score in enumerate(row) if score >= FLOOR} for row in scores.tolist()]
    store(database, model, [f"s3://b/{number:04}.jpg" for number in range(400)], rows)
    database.close()
    said = [
        {"file_name": f"{number:04}.jpg", "tags": [TAGS[tag].name for tag in np.flatnonzero(row)]}
        for number, row in enumerate(given_)
    ]
    lines(tmp_path / "truth.jsonl", *said, {"file_name": "gone.jpg", "tags": ["what"]})
    return {"scores": scores, "given": given_, "environment": {"TAGONCE_DATABASE_URL": database_url}}


def test_evaluate_prints_what_scikit_learn_computes(
    invoke: Callable[..., Outcome], judged: dict[str, Any], tmp_path: Path
) -> None:
    environment, truth, scores = judged["environment"], judged["given"], judged["scores"]
    done = invoke("evaluate", "truth.jsonl", "-t", "0.2", "--thresholds", "0.3..0.4:0.05", "--json", **environment)
    assert done.code == 0, done.err
    assert [row["threshold"] for row in done.json["results"]] == [0.2, 0.3, 0.35, 0.4]
    for row in done.json["results"]:
        for average in ("micro", "macro"):
            expected = precision_recall_fscore_support(
                truth, scores >= round(row["threshold"] * SCALE), average=average, zero_division=0
            )[:3]
            ours = [row[average][name] for name in ("precision", "recall", "f1")]
            np.testing.assert_allclose(ours, expected)
    assert done.json["truth"]["images"] == 400
    assert done.json["truth"]["unmatched"] == 1

    table = invoke(
        "evaluate",
        "truth.jsonl",
        "--by-tag",
        "tags.csv",
        "--plot",
        "curve.svg",
        "-t",
        "0.35",
        "-t",
        "0.2",
        **environment,
    )
    assert table.code == 0, table.err
    assert "0.35" in table.out
    assert "*" in table.out
    assert "tiny evaluated on 400 images with true tags from truth.jsonl" in table.err
    assert "1 not in the database (gone.jpg)" in table.err
    assert "precision" in (tmp_path / "curve.svg").read_text()
    with (tmp_path / "tags.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(TAGS)
    first = rows[1]
    assert (first["tag"], first["threshold"]) == ("tag_00", "0.35")
    assert int(first["tp"]) == int((truth[:, 0] & (scores[:, 0] >= 3500)).sum())

    one = invoke("evaluate", "truth.jsonl", "--tag", "tag 03", "--plot", "tag.png", "-t", "0.2", **environment)
    assert one.code == 0, one.err
    assert f"tag_03, given to {int(truth[:, 3].sum())} images" in one.out
    assert (tmp_path / "tag.png").read_bytes().startswith(b"\x89PNG")


def test_calibrate_saves_a_profile_that_judges_better(
    invoke: Callable[..., Outcome], judged: dict[str, Any], tmp_path: Path
) -> None:
    environment = judged["environment"]
    told = ("calibrate", "truth.jsonl", "--save", "best", "--by", "f-beta")
    done = invoke(*told, "--json", "--plot", "c.png", **environment)
    assert done.code == 0, done.err
    assert not done.json["held_out"]
    assert done.json["after"]["macro"]["f1"] > done.json["before"]["macro"]["f1"]
    supported = [tag.name for tag, times in zip(TAGS, judged["given"].sum(axis=0), strict=True) if times >= 10]
    assert done.json["tags"] == len(supported)
    assert done.json["source"] == "best F1, support at least 10; 400 images with true tags from truth.jsonl"
    assert (tmp_path / "c.png").exists()
    opened = open_database(environment["TAGONCE_DATABASE_URL"], create=False)
    with opened.read() as connection:
        saved = profiles.find(connection, models.latest(connection), "best")
    opened.close()
    assert set(saved.policy.tags) == set(supported)

    # The figures printed after calibration are those of an evaluation of the profile.
    judged_again = invoke("evaluate", "truth.jsonl", "--profile", "best", "--json", **environment)
    own, profile = judged_again.json["results"]
    assert own["micro"] == pytest.approx(done.json["before"]["micro"])
    assert profile["macro"] == pytest.approx(done.json["after"]["macro"])

    held = invoke(*told, "--holdout", "0.25", "--threshold", "0.5", **environment)
    assert held.code == 0, held.err
    assert "None of these images is among the " in held.err
    assert "0.5 for all others" in held.err
    assert "tagonce export --profile best" in held.err
    assert "best@2" in held.out


def test_calibrate_leaves_tags_alone_that_the_truth_never_names(
    invoke: Callable[..., Outcome], judged: dict[str, Any], tmp_path: Path
) -> None:
    """A truth of four tags has no information on other tags: they keep the threshold of the model."""
    named = {TAGS[tag].name for tag in range(4)}
    whole = [json.loads(line) for line in (tmp_path / "truth.jsonl").read_text().splitlines()]
    lines(tmp_path / "four.jsonl", *(one | {"tags": [tag for tag in one["tags"] if tag in named]} for one in whole))
    done = invoke("calibrate", "four.jsonl", "--save", "four", **judged["environment"])
    assert done.code == 0, done.err
    assert "Saved as four@1: thresholds for 4 tags, the model's own for all others." in done.err
    opened = open_database(judged["environment"]["TAGONCE_DATABASE_URL"], create=False)
    with opened.read() as connection:
        model = models.latest(connection)
        tags = models.tag_names(connection, model.id)
        before, after = resolve(model, tags), resolve(model, tags, profiles.find(connection, model, "four").policy)
    opened.close()
    assert {tags[tag].name for tag in np.flatnonzero(before.scores != after.scores)} == named


@pytest.mark.parametrize("options", [(), ("--min-support", "1"), ("--threshold", "0.5")])
def test_calibrate_refuses_too_little_truth(
    invoke: Callable[..., Outcome], judged: dict[str, Any], tmp_path: Path, options: tuple[str, ...]
) -> None:
    """A single image determines no threshold, for any value of --min-support."""
    lines(tmp_path / "one.jsonl", {"file_name": "0001.jpg", "tags": ["tag_00", "tag_05"]})
    done = invoke("calibrate", "one.jsonl", "--save", "one", *options, **judged["environment"])
    assert (done.code, done.out) == (1, "")
    needed = "a tag needs 1 image with it" if "--min-support" in options else "a tag needs 10 images with it"
    assert f"{needed} and one without, and no tag has that. Found: 1 image with true tags from" in done.err
    assert "one.jsonl, 2 tags of the model; the most frequent, tag_00, is on 1 of 1." in done.err


def test_what_is_undefined_is_shown_as_that(
    invoke: Callable[..., Outcome], judged: dict[str, Any], tmp_path: Path
) -> None:
    """With one image each tag has only positives or only negatives: macro informedness is a mean over no tag."""
    lines(tmp_path / "one.jsonl", {"file_name": "0001.jpg", "tags": ["tag_00", "tag_05"]})
    asked = ("evaluate", "one.jsonl", "-t", "0.2", "-t", "0.5", "--plot", "one.svg")
    done = invoke(*asked, "--json", **judged["environment"])
    assert [row["macro"]["informedness"] for row in done.json["results"]] == [None, None]
    table = invoke(*asked, **judged["environment"])
    assert [line.split()[-1] for line in table.out.splitlines()[-2:]] == ["-", "-"]
    assert "macro: undefined" in (tmp_path / "one.svg").read_text()


def test_search_finds_mistakes(invoke: Callable[..., Outcome], judged: dict[str, Any]) -> None:
    """The results of a loop over scores and truth, largest difference first; also in some images or of some tags."""
    environment, scores, truth = judged["environment"], judged["scores"], judged["given"]
    uris = [f"s3://b/{number:04}.jpg" for number in range(len(scores))]
    asked = ("search", "--truth", "truth.jsonl", "--below", "0.2", "--above", "0.4")
    expected = {
        (uris[image], f"tag_{tag:02}", "given" if truth[image, tag] else "missing")
        for image, tag in np.ndindex(scores.shape)
        if (scores[image, tag] < 2000 if truth[image, tag] else scores[image, tag] >= 4000)
    }
    assert len({kind for _uri, _tag, kind in expected}) == 2
    done = invoke(*asked, "--json", **environment)
    found = [json.loads(line) for line in done.out.splitlines()]
    assert {(row["uri"], row["tag"], row["kind"]) for row in found} == expected
    assert len(found) == len(expected)

    one = invoke(*asked, "--json", "--tag", "tag 03", "tag_00:0.3", **environment)
    with_tag = {uris[image] for image in range(len(uris)) if scores[image, 0] >= 3000}
    assert {(row["uri"], row["tag"]) for row in map(json.loads, one.out.splitlines())} == {
        (uri, tag) for uri, tag, _kind in expected if tag == "tag_03" and uri in with_tag
    }
    table = invoke(*asked, "-n", "3", **environment)
    assert len(table.out.splitlines()) == 4
    assert f"{len(expected):,} tags to check" in table.err
    assert "Showing the 3 largest differences." in table.err
    refused = invoke("search", **environment)
    assert (refused.code, "There is no query" in refused.err) == (2, True)


def test_histogram_shows_a_tag(invoke: Callable[..., Outcome], judged: dict[str, Any], tmp_path: Path) -> None:
    environment, scores = judged["environment"], judged["scores"][:, 4]
    done = invoke("histogram", "Tag 04", "--bins", "10", "--json", **environment)
    assert done.code == 0, done.err
    stored = scores[scores >= FLOOR]
    expected = np.histogram(stored, np.arange(0, SCALE + 1, SCALE // 10))[0].tolist()
    assert [row["images"] for row in done.json["bins"]] == expected
    assert done.json["below_floor"] == int((scores < FLOOR).sum())
    shown = invoke("histogram", "tag_04", "--plot", "h.svg", **environment)
    assert shown.code == 0, shown.err
    assert len(shown.out.splitlines()) == 21
    assert "tag_04 by tiny: 400 images" in shown.err
    assert "tag_04 by tiny" in (tmp_path / "h.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("evaluate", "nowhere"), 1, "There is no nowhere"),
        (("evaluate", "truth.jsonl", "-t", "0.001"), 2, "floor of 0.01"),
        (("evaluate", "truth.jsonl", "--plot", "a.gif"), 2, ".png or .svg"),
        (("evaluate", "truth.jsonl", "--tag", "tag_0"), 2, "tiny: there is no tag 'tag_0'; did you mean 'tag_"),
        (("calibrate", "truth.jsonl", "--save", "1"), 2, "cannot be the name of a profile"),
        (("histogram", "nothing"), 2, "no tag 'nothing'"),
    ],
)
def test_what_cannot_be_judged_is_said_in_words(
    invoke: Callable[..., Outcome], judged: dict[str, Any], arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = invoke(*arguments, **judged["environment"])
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("histogram", "tag_04", "--plot"), "h.png"),
        (("histogram", "tag_04", "--plot"), "h.svg"),
        (("evaluate", "truth.jsonl", "-t", "0.2", "--by-tag"), "t.csv"),
    ],
)
def test_plots_and_tables_replace_their_kind_and_nothing_else(
    invoke: Callable[..., Outcome], judged: dict[str, Any], tmp_path: Path, arguments: tuple[str, ...], name: str
) -> None:
    """Otherwise an image with the name of a plot would be lost."""
    (tmp_path / name).write_bytes(b"\x89PNG a photograph")
    refused = invoke(*arguments, name, **judged["environment"])
    assert (refused.code, "tagonce did not write it: name another file" in refused.err) == (2, True)
    assert (tmp_path / name).read_bytes() == b"\x89PNG a photograph"
    (tmp_path / name).unlink()
    for _ in range(2):
        assert invoke(*arguments, name, **judged["environment"]).code == 0
