"""A model with the most tags goes through everything that reads or writes tag ids, on both databases."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select, text

from db.database import Database, open_database
from db.ledger import duplicates, images, models, results
from db.ledger.images import Reference
from db.ledger.models import Model, Tag
from db.ledger.results import Prediction
from db.policy import profiles
from db.policy.policies import Policy, resolve
from db.postings.build import update_postings
from db.read.histograms import histogram
from db.read.tag_batches import read_tag_batches
from db.read.tag_counts import tag_counts
from db.schema import profile_thresholds, tag_probabilities, tag_scores
from db.scores import MAX_TAGS, NEVER, Scores
from db.search import execute
from db.search.query import parse
from db.search.tree import Node, Not, Reaches
from db.sql.scores.conditions import FEW
from db.truth import labels
from db.truth.evaluation import evaluate
from db.truth.load_truth import read_truth
from db.truth.mistakes import find_mistakes
from tests.fixtures.command import Outcome
from tests.services.conftest import make_model

WITH_SCORES = (0, 16_383, 16_384, 32_767, 32_768, 65_536, 131_071)
"""Tags at the ends of each width of a number."""
ROWS = [
    dict(zip(WITH_SCORES, (9_000, 8_000, 7_000, 6_000, 5_000, 4_000, 9_500), strict=True)),
    dict(zip(WITH_SCORES, (200, 300, 400, 500, 600, 700, 800), strict=True)),
    {32_768: 9_100},
    {},
]
FLOOR = 100


def name(tag: int) -> str:
    return f"tag_{tag:06}"


@dataclass(frozen=True)
class Wide:
    """The model, its tags, each with a category of its own, and the ids of four images with scores."""

    url: str
    database: Database
    model: Model
    tags: list[Tag]
    ids: list[int]


@pytest.fixture(scope="module")
def wide(module_database_url: str) -> Iterator[Wide]:
    """One for all tests of a database: to store so many tags takes a second."""
    references = [Reference(f"s3://b/{number:04}", "1", 10) for number in range(len(ROWS))]
    database = open_database(module_database_url, create=False)
    with database.write() as connection:
        model = models.register(
            connection,
            name="wide",
            weights_sha256="",
            spec={},
            tag_list=[Tag(name(tag), f"category {tag}") for tag in range(MAX_TAGS)],
            floor=FLOOR,
            default_threshold=3_500,
        )
        ids = images.register(connection, references, model.id)
        results.save(connection, model.id, [_prediction(*pair) for pair in zip(ids, ROWS, strict=True)], [])
        tags = models.tag_names(connection, model.id)
    yield Wide(module_database_url, database, model, tags, ids)
    database.close()


def _prediction(image_id: int, row: dict[int, int]) -> Prediction:
    pairs = sorted((score, tag) for tag, score in row.items())
    kept = Scores(np.array([tag for _, tag in pairs], np.int32), np.array([score for score, _ in pairs], np.int16))
    return Prediction(image_id, "1", 10, 640, 480, "jpeg", bytes([image_id]) * 32, kept)


def test_scores_are_read_as_they_were_saved(wide: Wide) -> None:
    """In the views, as duplicates, and in histograms."""
    model, ids = wide.model, wide.ids
    with wide.database.read() as connection:
        wanted = {(image, tag, score) for image, row in zip(ids, ROWS, strict=True) for tag, score in row.items()}
        found = connection.execute(select(tag_scores.c.image_id, tag_scores.c.tag_id, tag_scores.c.score)).all()
        assert {tuple(row) for row in found} == wanted
        assert len(found) == len(wanted)
        named = connection.execute(select(tag_probabilities.c.image_id, tag_probabilities.c.tag)).all()
        assert {tuple(row) for row in named} == {(image, name(tag)) for image, tag, _ in wanted}
        stored = duplicates.stored_results(connection, model.id, [bytes([image]) * 32 for image in ids])
        for image, row in zip(ids, ROWS, strict=True):
            scores = stored[bytes([image]) * 32].scores
            assert dict(zip(scores.tag_ids.tolist(), scores.scores.tolist(), strict=True)) == row
        for tag in WITH_SCORES:
            assert sum(histogram(connection, model, tag, 100).counts) == sum(tag in row for row in ROWS)


@pytest.mark.parametrize("indexed", [False, True])
def test_searches_find_tags_of_any_number(wide: Wide, indexed: bool) -> None:
    """One tag, two, a range of scores, more than are compared one by one, sorting; with and without the index."""
    model, tags, ids = wide.model, wide.tags, wide.ids
    if indexed:
        update_postings(wide.database, model, floor=FLOOR)
    with wide.database.read() as connection:
        cut = resolve(model, tags, Policy(3_500))

        def found(tree: Node) -> list[int]:
            hits = [hit.image_id for hit in execute.search(connection, model, tree)]
            assert execute.count(connection, model, tree) == len(hits)
            return [ids.index(one) for one in hits]

        for tag in WITH_SCORES:
            high = [number for number, row in enumerate(ROWS) if row.get(tag, 0) >= 3_500]
            assert found(Reaches((tag,), (3_500,))) == high
            assert found(Not(Reaches((tag,), (3_500,)))) == [one for one in range(len(ROWS)) if one not in high]
            assert found(Reaches((tag,), (FLOOR,), 1_000)) == ([1] if tag in ROWS[1] else [])
            many = (*range(40_000, 40_000 + FEW), tag)
            assert found(Reaches(many, (3_500,) * len(many))) == high
        assert found(Reaches((32_768, 131_071), (3_500, 3_500))) == [0, 2]
        assert found(Reaches((32_768, 131_071), (9_050, 9_600))) == [2]
        tree = parse(f"{name(131_071)} {name(32_768)}", model, tags, cut)
        assert found(tree) == [0]
        tree = Reaches((32_768,), (FLOOR,))
        shown = execute.scores_to_show(tree, model, len(tags))
        hits = list(execute.search(connection, model, tree, sort=32_768, show=shown))
        assert [ids.index(hit.image_id) for hit in hits] == [2, 0, 1]
        assert hits[0].tags == ((32_768, 0.91),)


def test_policies_and_counts_keep_tags_of_any_number(wide: Wide) -> None:
    """One threshold, thresholds of tags, the best ones, MCut with more than 65,536 categories, and a profile."""
    model, tags = wide.model, wide.tags
    with wide.database.write() as connection:
        for policy, expected in (
            (Policy(4_500), {tag: sum(row.get(tag, 0) >= 4_500 for row in ROWS) for tag in WITH_SCORES}),
            (Policy(NEVER, tags={name(131_071): 700, name(0): 9_100}), {131_071: 2}),
            (Policy(FLOOR, top=1), {131_071: 2, 32_768: 1}),
            (Policy(mcut=True), {tag: sum(tag in row for row in ROWS) for tag in WITH_SCORES}),
        ):
            cut = resolve(model, tags, policy)
            counted = {one.tag: one.images for one in tag_counts(connection, model, cut)}
            assert counted == {name(tag): number for tag, number in expected.items() if number}
            (batch,) = read_tag_batches(connection, model, cut)
            assert batch.tag_ids.size == sum(counted.values())
        saved = profiles.save(connection, model, "mine", Policy(3_000, tags={name(131_071): 9_000}), source="a test")
        applied = select(profile_thresholds.c.score).where(
            profile_thresholds.c.profile_id == saved.id, profile_thresholds.c.tag_id == 131_071
        )
        assert connection.scalar(applied) == 9_000


def test_labels_and_evaluation_of_tags_of_any_number(wide: Wide) -> None:
    database, model, ids = wide.database, wide.model, wide.ids
    with database.write() as connection:
        for tag in WITH_SCORES:
            labels.save(connection, model, ids[0], tag, True, by="ann", drawn=labels.Drawn.RANDOM)
            labels.save(connection, model, ids[1], tag, False, by="ann", drawn=labels.Drawn.RANDOM)
    with database.read() as connection:
        for tag in WITH_SCORES:
            found = labels.of_tag(connection, model, tag)
            assert found.scores.tolist() == [ROWS[0][tag], ROWS[1][tag]]
            assert found.right.tolist() == [True, False]
        assert labels.every(connection, model).tag_ids.tolist() == [*WITH_SCORES, *WITH_SCORES]
        truth = read_truth(connection, model, "labels")
        counted = evaluate(connection, model, truth, [3_500]).counts
        assert np.flatnonzero(counted.support).tolist() == list(WITH_SCORES)
        assert np.flatnonzero(counted.positives[:, 0]).tolist() == list(WITH_SCORES)
        mistakes = find_mistakes(connection, model, truth, below=4_500, above=750)
        assert [(one.tag, one.kind) for one in mistakes] == [(name(65_536), "given"), (name(131_071), "missing")]


def test_truth_in_a_file_may_name_tags_of_any_number(wide: Wide, tmp_path: Path) -> None:
    file = tmp_path / "truth.jsonl"
    file.write_text(json.dumps({"uri": "s3://b/0000", "tags": [name(tag) for tag in WITH_SCORES]}) + "\n")
    with wide.database.read() as connection:
        assert read_truth(connection, wide.model, str(file)).tag_ids.tolist() == list(WITH_SCORES)


def test_exports_have_tags_of_any_number(wide: Wide, tmp_path: Path, invoke: Callable[..., Outcome]) -> None:
    """Parquet with a column for each tag is refused; Parquet with a row for each tag is not."""
    expected = [
        [name(tag) for tag, score in sorted(row.items(), key=lambda pair: -pair[1]) if score >= 3_500] for row in ROWS
    ]
    options = ("--model", "wide", "--threshold", "0.35", "--database", wide.url)
    lines = invoke("export", "--format", "jsonl", *options).out.splitlines()
    captions = [json.loads(line)["caption"] for line in lines]
    assert [[tag.replace(" ", "_") for tag in caption.split(", ") if tag] for caption in captions] == expected
    if wide.url.startswith("postgresql"):
        return  # the databases differ in what is read, and not in how it is written
    out = tmp_path / "x.parquet"
    assert invoke("export", "--format", "parquet", "--out", out, *options).code == 0
    assert pq.read_table(out)["tag"].to_pylist() == [tag for row in expected for tag in row]
    refused = invoke("export", "--format", "parquet-wide", "--out", tmp_path / "wide.parquet", *options)
    assert refused.code == 2
    assert "a column for each tag: 131,072 of wide, and at most 32,767" in refused.err


def test_a_model_of_few_tags_beside_it_is_stored_as_before(wide: Wide) -> None:
    """PostgreSQL has its tag ids as smallints, and the other column is null."""
    model = make_model(wide.database)
    with wide.database.write() as connection:
        results.save(connection, model.id, [_prediction(wide.ids[0], {1: 500, 2: 400})], [])
        if connection.dialect.name == "postgresql":
            query = text(
                "select pg_column_size(tag_ids), wide_tag_ids is null from predictions where model_id = :model"
            )
            assert tuple(connection.execute(query, {"model": model.id}).one()) == (2 * 2 + 21, True)
        found = connection.execute(select(tag_scores.c.tag_id).where(tag_scores.c.model_id == model.id))
        assert sorted(found.scalars()) == [1, 2]
