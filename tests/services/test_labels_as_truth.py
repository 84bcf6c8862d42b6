"""`labels` as the truth of `evaluate`, `calibrate` and `search`: only judged tags count."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from db.database import Database, open_database
from db.errors import SourceError
from db.ledger import images, models
from db.ledger.images import Reference
from db.ledger.models import Model
from db.policy import profiles
from db.policy.policies import Policy, resolve
from db.schema import models as models_table
from db.scores import SCALE
from db.truth import labels
from db.truth.evaluation import evaluate
from db.truth.labels import Drawn
from db.truth.load_truth import describe, read_truth
from db.truth.mistakes import find_mistakes
from tests.fixtures.command import Outcome
from tests.services.conftest import TAGS, make_model
from tests.services.test_judging import FLOOR, store

IMAGES = 120
JUDGED_TAGS = 3
"""Tags with enough labels for a threshold."""
OWN = 3505
"""The model's own threshold, which `calibrate` does not try."""
UNKNOWN, WRONG, RIGHT = -1, 0, 1
Said = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""(images, tags) scores, and judgements."""


@pytest.fixture(scope="module")
def said() -> Said:
    """The first tags are judged on about half of the images, and one more tag on four images only."""
    rng = np.random.default_rng(13)
    scores = rng.integers(0, SCALE + 1, (IMAGES, len(TAGS)))
    scores[:20, 1] = 0
    scores[:, JUDGED_TAGS] = OWN + 1
    verdicts = np.where(rng.random(scores.shape) < scores / SCALE, RIGHT, WRONG)
    judged = rng.random(scores.shape) < 0.5
    judged[:, JUDGED_TAGS:] = False
    judged[:4, JUDGED_TAGS] = True
    judged[-1] = False
    return scores, np.where(judged, verdicts, UNKNOWN)


def fill(database: Database, said: Said) -> tuple[Model, list[str]]:
    """Store scores and labels. A third of the labels were drawn near a threshold."""
    scores, verdicts = said
    make_model(database)
    with database.write() as connection:
        connection.execute(models_table.update().values(default_threshold=OWN))
        model = models.latest(connection)
    rows = [{tag: score for tag, score in enumerate(row) if score >= FLOOR} for row in scores.tolist()]
    uris = [f"s3://b/{number:04}.jpg" for number in range(IMAGES)]
    ids = store(database, model, uris, rows)
    with database.write() as connection:
        for image, tag_id in zip(*np.nonzero(verdicts != UNKNOWN), strict=True):
            labels.save(
                connection,
                model,
                ids[image],
                int(tag_id),
                bool(verdicts[image, tag_id]),
                by="ann",
                drawn=Drawn.RANDOM if image % 3 else Drawn.LINE,
            )
    return model, uris


@pytest.fixture
def environment(database_url: str, said: Said) -> dict[str, str]:
    opened = open_database(database_url)
    fill(opened, said)
    opened.close()
    return {"TAGONCE_DATABASE_URL": database_url}


def of_tag(said: Said, tag_id: int) -> tuple[Any, Any]:
    """(scores, judgements) of the images on which a tag was judged."""
    scores, verdicts = (one[:, tag_id] for one in said)
    return scores[verdicts != UNKNOWN], verdicts[verdicts != UNKNOWN] == RIGHT


def test_each_tag_counts_the_images_on_which_it_was_judged(database: Database, said: Said) -> None:
    """At thresholds, by a policy and with top-k, compared with scikit-learn; also of a held-out half."""
    scores, verdicts = said
    model, _uris = fill(database, said)
    with database.read() as connection:
        tags = models.tag_names(connection, model.id)
        cuts = [resolve(model, tags, policy) for policy in (Policy(5000, tags={"tag_01": 200}), Policy(FLOOR, top=2))]
        truth = read_truth(connection, model, "labels")
        found = evaluate(connection, model, truth, [FLOOR, 3500], cuts)
        parts = [evaluate(connection, model, part, [FLOOR, 3500]).counts for part in truth.split(0.4)]
    known = verdicts != UNKNOWN
    rank = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)
    every = found.counts.of(slice(None))
    for kept, ours in (
        (scores >= FLOOR, every.at(slice(None), 0)),
        (scores >= 3500, every.at(slice(None), 1)),
        (scores >= cuts[0].scores, found.cuts[0]),
        ((rank < 2) & (scores >= FLOOR), found.cuts[1]),
    ):
        for tag_id in range(len(TAGS)):
            of_tag = known[:, tag_id]
            expected = (
                confusion_matrix(verdicts[of_tag, tag_id] == RIGHT, kept[of_tag, tag_id], labels=[False, True])
                if of_tag.any()
                else np.zeros((2, 2))
            )
            numbers = [[ours.tn[tag_id], ours.fp[tag_id]], [ours.fn[tag_id], ours.tp[tag_id]]]
            np.testing.assert_array_equal(numbers, expected)
    assert found.counts.images == len(truth) == known.any(axis=1).sum()
    assert found.counts.judged is not None
    np.testing.assert_array_equal(found.counts.judged, known.sum(axis=0))
    for name in ("kept", "positives", "support", "judged", "images"):
        np.testing.assert_array_equal(sum(getattr(part, name) for part in parts), getattr(found.counts, name))


def test_what_nobody_judged_is_no_mistake(database: Database, said: Said) -> None:
    scores, verdicts = said
    model, uris = fill(database, said)
    with database.read() as connection:
        found = list(find_mistakes(connection, model, read_truth(connection, model, "labels"), below=3000, above=6000))
    expected = {
        (uris[image], TAGS[tag].name, "given" if verdicts[image, tag] == RIGHT else "missing")
        for image, tag in np.ndindex(*scores.shape)
        if (verdicts[image, tag] == RIGHT and scores[image, tag] < 3000)
        or (verdicts[image, tag] == WRONG and scores[image, tag] >= 6000)
    }
    assert {(one.uri, one.tag, one.kind) for one in found} == expected
    assert len(found) == len(expected) > 10


def test_labels_that_do_not_count_are_told(database: Database, model: Model, other_model: Model) -> None:
    """Ties, changed files, tags of another model, and images that this model has not tagged."""
    uris = [f"s3://b/{number}" for number in range(4)]
    ids = store(database, model, uris, [{1: 9000}] * 4)
    with database.write() as connection:
        with pytest.raises(SourceError, match=r"There are no labels of tags of tiny, .*tagonce review"):
            read_truth(connection, model, "labels")
        for image_id, by, is_right in ((ids[0], "ann", True), (ids[1], "ann", True), (ids[1], "bob", False)):
            labels.save(connection, model, image_id, 1, is_right, by=by, drawn=Drawn.RANDOM)
        labels.save(connection, model, ids[2], 1, True, by="ann", drawn=Drawn.RANDOM)
        images.register(connection, [Reference(uris[2], "2", 10)], model.id)
        connection.exec_driver_sql(
            "insert into labels (image_id, tag, judged_by, is_right, judged_at, image_version, drawn) "  # noqa: S608
            f"values ({ids[0]}, 'elsewhere', 'ann', true, '2026-01-01 00:00:00', '1', 'line')"
        )
        truth = read_truth(connection, model, "labels")
        assert truth.image_ids.tolist() == [ids[0]]
        assert (truth.found.entries, truth.found.undecided, truth.found.unknown) == (1, 2, (("elsewhere", 1),))
        assert describe(truth) == [
            "1 tag ignored, which the model does not have: elsewhere (1).",
            "2 judged tags ignored: the file has changed, or as many people say right as wrong.",
        ]
        # The other model has the tag, and has tagged none of the images.
        assert (
            evaluate(connection, other_model, read_truth(connection, other_model, "labels"), [5000]).counts.images == 0
        )


# ── commands ──


def test_evaluate_judges_by_labels(
    invoke: Callable[..., Outcome],
    environment: dict[str, str],
    said: Said,
    tmp_path: Path,
) -> None:
    verdicts = said[1]
    number, pictures = int((verdicts != UNKNOWN).sum()), int((verdicts != UNKNOWN).any(axis=1).sum())
    of_line = int((verdicts[::3] != UNKNOWN).sum())
    done = invoke("evaluate", "labels", "-t", "0.4", "--by-tag", "tags.csv", "--plot", "all.svg", **environment)
    assert done.code == 0, done.err
    assert (
        f"tiny evaluated on {number} labels of {pictures} images; macro is the mean over {JUDGED_TAGS + 1} tags"
        in done.err
    )
    assert "micro counts every label." in done.err
    assert "Only labelled tags count" in done.err
    assert f"{of_line} of {number} labels on images not drawn at random (line {of_line})" in done.err
    with (tmp_path / "tags.csv").open() as file:
        by_tag = {row["tag"]: row for row in csv.DictReader(file)}
    assert set(by_tag) == {tag.name for tag in TAGS[: JUDGED_TAGS + 1]}
    for tag_id in range(JUDGED_TAGS):
        scores, right = of_tag(said, tag_id)
        row = by_tag[TAGS[tag_id].name]
        assert float(row["precision"]) == pytest.approx(precision_score(right, scores >= 4000))
        assert float(row["recall"]) == pytest.approx(recall_score(right, scores >= 4000))
        assert sum(int(row[name]) for name in ("tp", "fp", "fn", "tn")) == right.size

    one = invoke("evaluate", "labels", "--tag", "tag 01", "--plot", "one.svg", "-t", "0.4", **environment)
    scores, right = of_tag(said, 1)
    assert f"tag_01, right on {right.sum()} of {right.size} images judged" in one.out
    drawing = (tmp_path / "one.svg").read_text()
    assert f"tag_01 by tiny, {right.size} images" in drawing
    assert f"not given ({(scores[~right] < FLOOR).sum()} more below the floor)" in drawing

    found = invoke("evaluate", "labels", "-t", "0.4", "--json", **environment).json["truth"]
    assert (found["labels"], found["images"], found["source"]) == (number, pictures, "labels")
    assert found["drawn"] == {"random": number - of_line, "line": of_line}


def test_calibrate_finds_thresholds_of_the_tags_that_were_judged(
    invoke: Callable[..., Outcome],
    environment: dict[str, str],
    said: Said,
) -> None:
    done = invoke("calibrate", "labels", "--save", "mine", "--plot", "c.svg", **environment)
    assert done.code == 0, done.err
    assert "Saved as mine@1: thresholds for 3 tags, the model's own for all others." in done.err
    opened = open_database(environment["TAGONCE_DATABASE_URL"], create=False)
    with opened.read() as connection:
        saved = profiles.find(connection, models.latest(connection), "mine")
    opened.close()
    number = int((said[1] != UNKNOWN).sum())
    assert saved.source.startswith(f"best informedness, support at least 10; {number} labels of ")
    assert (set(saved.policy.tags), saved.policy.default) == ({tag.name for tag in TAGS[:JUDGED_TAGS]}, None)
    for tag_id in range(JUDGED_TAGS):
        scores, right = of_tag(said, tag_id)

        # Between two scores nothing changes, so the thresholds of the grid just above each score are sufficient.
        steps = [FLOOR, *(min(score // 10 * 10 + 10, SCALE) for score in scores.tolist() if score >= FLOOR)]
        kept = scores >= np.array([*steps, saved.policy.tags[TAGS[tag_id].name]])[:, None]
        informedness = kept[:, right].mean(axis=1) + (~kept[:, ~right]).mean(axis=1) - 1
        assert informedness[-1] == pytest.approx(informedness.max())

    # The figures printed after calibration are those of an evaluation of the profile, also for the unchanged tag.
    told = invoke("calibrate", "labels", "--save", "mine", "--json", **environment).json
    own, profile = invoke("evaluate", "labels", "--profile", "mine", "--json", **environment).json["results"]
    assert (own["micro"], own["macro"]) == (told["before"]["micro"], told["before"]["macro"])
    assert (profile["micro"], profile["macro"]) == (told["after"]["micro"], told["after"]["macro"])
    assert told["default"] is None

    held = invoke("calibrate", "labels", "--save", "mine", "--holdout", "0.3", "-t", "0.5", **environment)
    assert held.code == 0, held.err
    assert "0.5 for all others." in held.err
    few = invoke("calibrate", "labels", "--save", "few", "--min-support", "500", **environment)
    assert (few.code, few.out) == (1, "")
    assert "a tag needs 500 labels saying right and one saying wrong, and no tag has that" in few.err
    assert f"Found: {number} labels of " in few.err


def test_search_finds_labels_that_the_model_denies(
    invoke: Callable[..., Outcome],
    environment: dict[str, str],
    said: Said,
) -> None:
    scores, verdicts = said
    done = invoke("search", "--truth", "labels", "--below", "0.3", "--tag", "tag_00", "--json", **environment)
    found = [json.loads(line) for line in done.out.splitlines()]
    given = int(((scores[:, 0] < 3000) & (verdicts[:, 0] == RIGHT)).sum())
    missing = int(((scores[:, 0] >= 9000) & (verdicts[:, 0] == WRONG)).sum())
    assert [sum(one["kind"] == kind for one in found) for kind in ("given", "missing")] == [given, missing]
    assert given


def test_without_labels_the_commands_say_what_to_do(
    invoke: Callable[..., Outcome], database: Database, model: Model, database_url: str
) -> None:
    for arguments in (("evaluate", "labels"), ("calibrate", "labels", "--save", "x"), ("search", "--truth", "labels")):
        done = invoke(*arguments, TAGONCE_DATABASE_URL=database_url)
        assert (done.code, done.out) == (1, "")
        assert "There are no labels of tags of tiny" in done.err
