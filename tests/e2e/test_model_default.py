"""The thresholds that come with a model: registered by `tagonce tag`, used by every command without a policy."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import select

from db.database import open_database
from db.ledger import models
from db.schema import tag_scores
from tests.fixtures.checkpoints import RATINGS, write_wd
from tests.fixtures.command import Outcome

Run = Callable[..., Outcome]


def with_thresholds(folder: Path, thresholds: dict[str, str]) -> None:
    """Add the column best_threshold to the tag list, 0.5 where nothing else is given."""
    path = folder / "selected_tags.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["tag_id", "name", "category", "count", "best_threshold"])
        writer.writeheader()
        writer.writerows(row | {"best_threshold": thresholds.get(row["name"], "0.5")} for row in rows)


def stored_scores(url: str) -> list[dict[str, int]]:
    """Name to score of each image in the order of registration."""
    database = open_database(url)
    with database.read() as connection:
        names = [tag.name for tag in models.tag_names(connection, 1)]
        found: dict[int, dict[str, int]] = {}
        for row in connection.execute(select(tag_scores)):
            found.setdefault(row.image_id, {})[names[row.tag_id]] = row.score
    database.close()
    return [found[image_id] for image_id in sorted(found)]


def kept(scores: dict[str, int], thresholds: dict[str, float], others: float) -> set[str]:
    """By the thresholds, and of the ratings the best one that reaches its own."""
    reaching = {name for name, score in scores.items() if score >= round(thresholds.get(name, others) * 10_000)}
    ratings = sorted(reaching & set(RATINGS), key=lambda name: (-scores[name], RATINGS.index(name)))
    return reaching - set(ratings[1:])


def test_they_are_a_profile_that_every_command_uses(
    tagonce: Run, invoke: Run, make_photos: Callable[..., list[Path]], sqlite_url: str, tmp_path: Path
) -> None:
    folder = write_wd(tmp_path / "tiny")
    with_thresholds(folder, {"wolf": "0.05", "fox": "", **dict.fromkeys(RATINGS, "0.02")})
    make_photos(3)
    done = tagonce("tag", "photos", "--model", folder, "--database", sqlite_url)
    assert done.code == 0, done.err

    def run(*arguments: str) -> Outcome:
        outcome = invoke(*arguments, TAGONCE_DATABASE_URL=sqlite_url)
        assert outcome.code == 0, outcome.err
        return outcome

    policy = run("thresholds", "show", "model-default", "--json").json["policy"]
    assert policy["best_of"] == ["rating"]
    assert (policy["tags"]["wolf"], policy["tags"]["fox"], policy["tags"]["bird"]) == (0.05, "off", 0.5)

    thresholds = {"wolf": 0.05, "fox": 2.0, **dict.fromkeys(RATINGS, 0.02)}
    expected = [kept(scores, thresholds, 0.5) for scores in stored_scores(sqlite_url)]
    assert any("wolf" in tags for tags in expected)
    assert sum(len(tags & set(RATINGS)) for tags in expected) == 3

    def counts(*options: str) -> dict[str, int]:
        return {
            one["tag"]: one["images"] for one in map(json.loads, run("counts", "--json", *options).out.splitlines())
        }

    def number(of: list[set[str]]) -> dict[str, int]:
        return {name: sum(name in tags for tags in of) for name in set().union(*of)}

    assert counts() == counts("--profile", "model-default@1") == number(expected)
    every = [{name for name, score in scores.items() if score >= 500} for scores in stored_scores(sqlite_url)]
    assert counts("--threshold", "0.05") == number(every), "a threshold for all tags replaces the default policy"
    changed = [kept(scores, thresholds | {"wolf": 0.4}, 0.5) for scores in stored_scores(sqlite_url)]
    assert counts("--tag-threshold", "wolf=0.4") == number(changed)
    run("thresholds", "save", "--name", "mine", "--tag-threshold", "wolf=0.4")
    assert counts("--profile", "mine") == number(changed)
    for rating in RATINGS:
        found = run("search", rating, "--count", "--json").json["images"]
        assert found == number(expected).get(rating, 0)
    run("export", "--format", "jsonl", "--rating", "threshold", "--out", "captions.jsonl")
    captions = [json.loads(line)["caption"] for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert [set(caption.replace(" ", "_").split(",_")) for caption in captions] == expected
    assert json.loads((tmp_path / "captions.jsonl.export.json").read_text())["profile"] == "model-default@1"
    assert "changed" in run("thresholds", "diff", "default", "mine").out
    refused = invoke("thresholds", "save", "--name", "model-default", "-t", "0.3", TAGONCE_DATABASE_URL=sqlite_url)
    assert refused.code == 2
    assert "reserved" in refused.err

    predicted = run("predict", str(tmp_path / "photos"), "--model", str(folder), "--device", "cpu").out
    shown = {word for line in predicted.splitlines() for word in line.split()[:1]}
    assert shown & {*RATINGS, "wolf", "fox"} == set().union(*expected) & {*RATINGS, "wolf", "fox"}

    with_thresholds(folder, {"wolf": "0.3"})
    again = tagonce("tag", "photos", "--model", folder, "--database", sqlite_url)
    assert "Nothing to tag" in again.err, "thresholds are not part of the model"
    assert [one["profile"] for one in run("thresholds", "list", "--json").json] == [
        "mine@1", "model-default@1", "model-default@2",
    ]  # fmt: skip
    assert run("thresholds", "show", "model-default", "--json").json["policy"]["tags"]["wolf"] == 0.3
