"""The default policy of a model: when it is saved, and what the review page and its counts make of it."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from db.database import Database
from db.errors import ThresholdError
from db.ledger import models
from db.ledger.models import Model, Tag
from db.policy import model_default, profiles
from db.policy.policies import Policy, resolve
from db.read import comparison
from db.read.distribution import count_scores
from db.scores import NEVER
from tests.fixtures.command import Outcome
from tests.fixtures.pages import text
from tests.services.conftest import TAGS
from tests.services.test_judging import store
from tests.services.test_review import chips

RATED = [Tag("safe", "Rating"), Tag("explicit", "Rating"), Tag("good", "quality"), Tag("cat", "general")]
THRESHOLDS = Policy(categories={"general": 50}, tags={"cat": NEVER})


@pytest.fixture
def rated(database: Database) -> Model:
    with database.write() as connection:
        return models.register(
            connection, name="rated", weights_sha256="r", spec={}, tag_list=RATED, floor=200, default_threshold=3500
        )


def saved(database: Database, model: Model, thresholds: Policy, *, is_new: bool) -> tuple[str, Policy] | None:
    with database.write() as connection:
        found = model_default.save(connection, model, thresholds, is_new=is_new)
        assert found == model_default.find(connection, model)
    return None if found is None else (found.label, found.policy)


def test_a_new_model_has_its_thresholds_and_groups_and_other_thresholds_are_the_next_version(
    database: Database, rated: Model
) -> None:
    """Thresholds below the floor become the floor. The best tag of a group without thresholds is kept at any score."""
    groups = {"Rating": 200, "quality": 200}
    first = Policy(categories={"general": 200} | groups, tags={"cat": NEVER}, best_of=("Rating", "quality"))
    assert saved(database, rated, THRESHOLDS, is_new=True) == ("model-default@1", first)
    assert saved(database, rated, THRESHOLDS, is_new=False) == ("model-default@1", first)
    second = Policy(categories={"quality": 200}, tags={"safe": 4000}, best_of=("Rating", "quality"))
    assert saved(database, rated, Policy(tags={"safe": 4000}), is_new=False) == ("model-default@2", second)
    only_groups = Policy(categories=groups, best_of=("Rating", "quality"))
    assert saved(database, rated, Policy(), is_new=False) == ("model-default@3", only_groups)


def test_a_model_of_an_older_database_gets_no_groups(database: Database, rated: Model) -> None:
    assert saved(database, rated, Policy(), is_new=False) is None
    first = Policy(categories={"general": 200}, tags={"cat": NEVER})
    assert saved(database, rated, THRESHOLDS, is_new=False) == ("model-default@1", first)
    assert saved(database, rated, Policy(default=3000), is_new=False) == ("model-default@2", Policy(3000))


def test_a_model_without_thresholds_and_groups_has_none(database: Database, model: Model) -> None:
    assert saved(database, model, Policy(), is_new=True) is None


def test_people_cannot_save_under_its_name(database: Database, model: Model) -> None:
    with database.write() as connection, pytest.raises(ThresholdError, match="model-default, default, off"):
        profiles.save(connection, model, "model-default", Policy(5000), source="")


def test_the_page_begins_with_it(page: TestClient, database: Database, model: Model, ids: list[int]) -> None:
    policy = Policy(categories={"general": 6000}, tags={"tag_02": 500}, best_of=("general",))
    with database.write() as connection:
        profiles.save_default(connection, model, policy, source="files")
    answer = page.get("/?size=96").text
    with database.read() as connection:
        (batch,) = comparison.read_tag_batches(connection, model, resolve(model, TAGS, policy))
    for row, image_id in enumerate(batch.image_ids):
        kept = batch.tag_ids[batch.offsets[row] : batch.offsets[row + 1]].tolist()
        assert chips(answer, image_id) == [TAGS[tag].name for tag in kept]
    assert '<option value="model-default@1" selected>' in answer
    assert "the model&#39;s own," not in answer
    assert "As model-default@1 has it." in text(answer)
    assert "--profile model-default" in text(answer)
    moved = text(page.get("/compare?tag.tag_02=0.3").text)
    assert "thresholds save --name mine --profile model-default --tag-threshold tag_02=0.3" in moved
    assert "only the best tag of an exclusive category" in text(page.get("/tag/3").text)
    assert "exclusive category" not in text(page.get("/tag/2").text)


def test_counts_of_the_collection_compare_cuts_that_treat_a_group_alike(
    database: Database, model: Model, ids: list[int]
) -> None:
    """`gained_lost` is exact where `can_compare` says so."""
    policies = [
        Policy(default, {"general": general}, {"tag_02": own}, best_of=best_of)
        for default, general, own, best_of in product([3000, 5000], [2000, 6000], [500, 4000], [None, ("general",)])
    ]
    exact = 0
    with database.read() as connection:
        counted = count_scores(connection, model)
        cuts = [resolve(model, TAGS, policy) for policy in policies]
        for (first, one), (second, other) in product(zip(policies, cuts, strict=True), repeat=2):
            alike = (first.best_of, first.best_of and first.categories) == (
                second.best_of,
                second.best_of and second.categories,
            )
            assert counted.can_compare(one, other) == alike
            if alike and first != second:
                found = comparison.compare(connection, model, one, other)
                np.testing.assert_array_equal(counted.gained_lost(one, other), (found.gained, found.lost))
                assert counted.changed_images(one, other) in (None, found.changed)
                exact += 1
    assert exact


def test_evaluation_and_calibration_start_from_it(
    database: Database, database_url: str, model: Model, invoke: Callable[..., Outcome], tmp_path: Path
) -> None:
    """Each image has tag 1 at 0.2 and tag 3, of the same group, at 0.1; both are true."""
    uris = [f"s3://b/{number}.jpg" for number in range(12)]
    store(database, model, uris, [{1: 2000, 3: 1000} if number % 2 else {} for number in range(12)])
    with database.write() as connection:
        profiles.save_default(connection, model, Policy(500, best_of=("general",)), source="files")
    said = [{"path": uri, "tags": ["tag_01", "tag_03"] if number % 2 else []} for number, uri in enumerate(uris)]
    (tmp_path / "truth.jsonl").write_text("\n".join(map(json.dumps, said)))

    def recall(one: dict[str, Any]) -> float:
        return one["micro"]["recall"]

    found = invoke("evaluate", "truth.jsonl", "--json", TAGONCE_DATABASE_URL=database_url).json["results"]
    assert (found[-1]["label"], recall(found[-1])) == ("model-default@1", 0.5)
    one = invoke("evaluate", "truth.jsonl", "-t", "0.05", "--json", TAGONCE_DATABASE_URL=database_url).json["results"]
    assert [recall(row) for row in one] == [1.0]
    options = ("calibrate", "truth.jsonl", "--save", "best", "--min-support", "1", "--json")
    calibrated = invoke(*options, TAGONCE_DATABASE_URL=database_url).json
    assert (calibrated["before"]["label"], recall(calibrated["before"])) == ("model-default@1", 0.5)
    assert recall(calibrated["after"]) == 1.0
