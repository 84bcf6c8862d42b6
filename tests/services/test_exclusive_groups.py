"""Of the tags of an exclusive group an image keeps the best one: in searches, counts and exports, on both databases."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from db.database import Database
from db.errors import ThresholdError
from db.ledger import models
from db.ledger.models import Model, Tag
from db.policy.policies import Policy, resolve
from db.read.tag_counts import tag_counts
from db.scores import NEVER, SCALE
from db.search.execute import search
from db.search.query import parse
from tests.fixtures.command import Outcome
from tests.fixtures.examples import up_to
from tests.fixtures.indexed import Index, bring
from tests.services.test_thresholds import Rows, store

IMAGES, FLOOR = 5, 100
RATINGS = ("safe", "questionable", "explicit")
MANY = 60
"""More tags than SQLite compares one by one."""
TAGS = [
    *(Tag(name, "rating") for name in RATINGS),
    *(Tag(f"{name}_quality", "quality") for name in ("best", "worst")),
    *(Tag(f"name_{number}", "character") for number in range(MANY)),
    Tag("cat", "general"),
    Tag("cats_quality", "general"),
]

# Few distinct scores: ties are common.
some_scores = st.sampled_from([FLOOR, 3500, SCALE])
some_rows = st.lists(
    st.builds(
        dict.__or__,
        st.dictionaries(st.integers(0, len(TAGS) - 1), some_scores, max_size=5),
        st.dictionaries(st.sampled_from(range(len(RATINGS))), st.just(3500), min_size=1),
    ),
    min_size=IMAGES,
    max_size=IMAGES,
)
some_cuts = some_scores | st.just(NEVER)
some_policies = st.builds(
    Policy,
    default=st.sampled_from([FLOOR, 3500]),
    categories=st.dictionaries(st.sampled_from(["rating", "quality"]), some_cuts),
    tags=st.dictionaries(st.sampled_from([*RATINGS, "best_quality", "cat", "name_1"]), some_cuts, max_size=3),
    best_of=st.sampled_from([("rating",), ("rating", "quality"), ("character", "rating")]),
)
QUERIES = {
    **{tag.name: {number} for number, tag in enumerate(TAGS) if number < 7 or tag.category == "general"},
    "*_quality": {number for number, tag in enumerate(TAGS) if tag.name.endswith("_quality")},
    "~safe ~explicit": {0, 2},
    "category:rating": {0, 1, 2},
    "category:character": {number for number, tag in enumerate(TAGS) if tag.category == "character"},
    "name_1*": {number for number, tag in enumerate(TAGS) if tag.name.startswith("name_1")},
}
"""Queries without a threshold, and the tags of which an image must keep one."""


@pytest.fixture
def rated_model(database: Database) -> Model:
    with database.write() as connection:
        return models.register(
            connection,
            name="rated",
            weights_sha256="r",
            spec={},
            tag_list=TAGS,
            floor=FLOOR,
            default_threshold=3500,
        )


def kept(row: dict[int, int], policy: Policy) -> set[int]:
    """The tags that an image keeps, in plain words: of each group the highest score, of equal ones the first tag."""
    reaching = {}
    for tag_id, score in row.items():
        tag = TAGS[tag_id]
        threshold = policy.tags.get(tag.name, policy.categories.get(str(tag.category), policy.default))
        if threshold is not None and score >= threshold:
            reaching[tag_id] = score
    found = {tag_id for tag_id in reaching if TAGS[tag_id].category not in (policy.best_of or ())}
    for category in policy.best_of or ():
        members = [tag_id for tag_id in sorted(reaching) if TAGS[tag_id].category == category]
        if members:
            found.add(max(members, key=lambda tag_id: (reaching[tag_id], -tag_id)))
    return found


@pytest.mark.parametrize("index", [Index.NONE, Index.CURRENT])
def test_a_search_and_the_counts_know_the_best_of_each_group(
    database: Database, rated_model: Model, registered: Callable[..., list[int]], index: Index
) -> None:
    ids = registered(IMAGES)

    @hypothesis_settings(max_examples=up_to(60), deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(some_rows, some_policies)
    def check(rows: Rows, policy: Policy) -> None:
        expected = [kept(row, policy) for row in rows]
        with database.write() as connection:
            store(connection, rated_model, ids, rows)
        bring(database, rated_model, index, FLOOR)
        with database.read() as connection:
            cut = resolve(rated_model, TAGS, policy)
            scores: dict[str, list[int]] = {}
            for row, tags in zip(rows, expected, strict=True):
                for tag_id in tags:
                    scores.setdefault(TAGS[tag_id].name, []).append(row[tag_id])
            counted = {one.tag: (one.images, one.mean_probability) for one in tag_counts(connection, rated_model, cut)}
            means = {tag: (len(some), pytest.approx(sum(some) / len(some) / SCALE)) for tag, some in scores.items()}
            assert counted == means
            for query, wanted in QUERIES.items():
                having = [image_id for image_id, tags in zip(ids, expected, strict=True) if tags & wanted]
                for asked, images in ((query, having), (f"-( {query} )", [one for one in ids if one not in having])):
                    tree = parse(asked, rated_model, TAGS, cut)
                    assert [hit.image_id for hit in search(connection, rated_model, tree)] == images, asked

    check()


def test_a_group_is_a_category_of_the_model(rated_model: Model) -> None:
    with pytest.raises(ThresholdError, match="there is no category 'ratings'; did you mean 'rating'"):
        resolve(rated_model, TAGS, Policy(best_of=("ratings",)))


def test_a_policy_with_groups_is_saved_changed_and_used_by_every_command(
    database: Database,
    database_url: str,
    rated_model: Model,
    registered: Callable[..., list[int]],
    invoke: Callable[..., Outcome],
    tmp_path: Path,
) -> None:
    ids = registered(2)
    with database.write() as connection:
        store(connection, rated_model, ids, [{0: 6000, 1: 7000, 65: 9000}, {2: 5000}])

    def run(*arguments: str) -> Outcome:
        done = invoke(*arguments, "--model", "rated", TAGONCE_DATABASE_URL=database_url)
        assert done.code == 0, done.err
        return done

    run("thresholds", "save", "--name", "one", "--best-of", "rating", "--threshold", "0.5")
    shown = run("thresholds", "show", "one", "--json").json
    assert shown["policy"] == {"threshold": 0.5, "best_of": ["rating"]}
    assert "only the most probable one" in run("thresholds", "show", "one").out
    assert "best of rating" in run("thresholds", "list").out
    (tmp_path / "copy.json").write_text(json.dumps(shown))
    run("thresholds", "import", "copy.json", "--name", "copy")

    def counts(*options: str) -> dict[str, int]:
        lines = run("counts", "--json", *options).out.splitlines()
        return {one["tag"]: one["images"] for one in map(json.loads, lines)}

    one = {"questionable": 1, "explicit": 1, "cat": 1}
    every = one | {"safe": 1}
    assert counts("--profile", "one") == counts("--profile", "copy") == counts("--best-of", "rating") == one
    assert counts("--profile", "one", "--no-best-of") == counts("--threshold", "0.5") == every
    searches = [("--profile", "one"), ("--profile", "one", "--no-best-of"), ("--best-of", "rating")]
    assert [run("search", "safe", "--count", "--json", *options).json["images"] for options in searches] == [0, 1, 0]
    run("export", "--profile", "one", "--rating", "threshold", "--format", "jsonl", "--out", "captions.jsonl")
    captions = [json.loads(line)["caption"] for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert captions == ["cat, questionable", "explicit"]
