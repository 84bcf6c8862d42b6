"""`tagonce thresholds` and `tagonce counts` on both databases."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from db.database import open_database
from db.ledger import images, models, results
from db.ledger.images import Reference
from db.ledger.models import Tag
from db.ledger.results import Prediction
from db.policy import profiles
from db.policy.policies import Policy
from db.scores import Scores
from tests.fixtures.command import Outcome

TAGS = [Tag("safe", "rating"), Tag("cat", "general"), Tag("dog", "general"), Tag("saber_(fate)", "character")]
ROWS = [{0: 9000, 1: 8000, 2: 300}, {0: 9000, 2: 4000}, {1: 3600, 3: 9900}, {}]
"""Tag id to score, one dictionary per image."""

Run = Callable[..., Outcome]


@pytest.fixture
def run(database_url: str, invoke: Run) -> Run:
    """Runs `tagonce ...` on a database with the images above. Asserts the exit code, 0 by default."""
    database = open_database(database_url)
    with database.write() as connection:
        model = models.register(
            connection, name="tiny", weights_sha256="ab" * 32, spec={}, tag_list=TAGS, floor=100, default_threshold=3500
        )
        found = [Reference(f"s3://b/{number}.jpg", "1", 1) for number in range(len(ROWS))]
        ids = images.register(connection, found, model.id)
        done = []
        for image_id, row in zip(ids, ROWS, strict=True):
            tags = np.array(sorted(row, key=lambda tag: (row[tag], tag)), np.int16)
            scores = Scores(tags, np.array([row[tag] for tag in tags.tolist()], np.int16))
            done.append(Prediction(image_id, "1", 1, 9, 9, "png", bytes(32), scores))
        results.save(connection, model.id, done, [])
    database.close()

    def start(*arguments: str | Path, code: int = 0) -> Outcome:
        outcome = invoke(*arguments, TAGONCE_DATABASE_URL=database_url)
        assert outcome.code == code, outcome.err
        assert "Traceback" not in outcome.err
        return outcome

    return start


def test_a_file_is_imported_shown_edited_and_imported_again(run: Run, tmp_path: Path) -> None:
    """Tags of another model are skipped and reported. The second import is the second version."""
    (tmp_path / "calibration.csv").write_text("tag,threshold\ncat,0.34561\ndog,off\nunicorn,0.5\n")
    said = run("thresholds", "import", "calibration.csv", "--name", "mine", "--threshold", "0.3").err
    assert "1 tag skipped, because tiny has no tag of that name: unicorn" in said
    assert "1 threshold with more than four decimals, rounded up" in said
    assert "Saved as mine@1 for tiny: 2 tags, 0.3 for the rest." in said
    shown = run("thresholds", "show", "mine", "--json").json
    assert shown["policy"] == {"threshold": 0.3, "tags": {"cat": 0.3457, "dog": "off"}}
    assert (shown["profile"], shown["model"]["name"], shown["source"]) == ("mine@1", "tiny", "file calibration.csv")

    shown["policy"]["categories"] = {"character": 0.75}
    (tmp_path / "edited.json").write_text(json.dumps(shown))
    assert "mine@2" in run("thresholds", "import", "edited.json", "--name", "mine").err
    assert "category character" in run("thresholds", "show", "mine").out
    listed = run("thresholds", "list", "--json").json
    assert [row["profile"] for row in listed] == ["mine@1", "mine@2"]
    table = run("thresholds", "list").out
    assert "character=0.75" in table
    assert "file calibration.csv" in table


def test_options_are_saved_and_changed(run: Run) -> None:
    said = run("thresholds", "save", "-n", "mine", "-t", "0.3", "--tag-threshold", "saber_(fate)=0.5", "--top", "9").err
    assert "Saved as mine@1 for tiny: 1 tag, 0.3 for the rest." in said
    run("thresholds", "save", "-n", "other", "-p", "mine", "--category-threshold", "rating=off", "--mcut")
    policy = run("thresholds", "show", "other", "--json").json["policy"]
    assert policy == {
        "threshold": 0.3,
        "categories": {"rating": "off"},
        "tags": {"saber_(fate)": 0.5},
        "top": 9,
        "mcut": True,
    }
    assert "cut at its largest gap" in run("thresholds", "show", "other").out
    assert "Nothing to save" in run("thresholds", "save", "-n", "empty", code=2).err


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
@pytest.mark.parametrize(
    "options",
    [
        ["-t", "0.5"],
        ["--category-threshold", "general=0.85"],
        ["--tag-threshold", "dog=off"],
        ["--tag-threshold", "cat=default"],
        ["--category-threshold", "rating=default", "-t", "0.02"],
        ["--top", "1"],
        ["--no-top"],
        ["--no-mcut", "--no-top"],
        ["--mcut"],
        ["-t", "0.5", "--no-top", "--no-mcut", "--tag-threshold", "cat=default"],
    ],
)
def test_options_beside_a_profile_mean_what_saving_them_means(run: Run, options: list[str]) -> None:
    """In every command the options change only the named parts of the profile."""

    def counts(*arguments: str) -> list[str]:
        return run("counts", "--json", *arguments).out.splitlines()

    def exported(*arguments: str) -> list[str]:
        return run("export", "--format", "jsonl", *arguments).out.splitlines()

    tags = ("--tag-threshold", "cat=0.3", "--category-threshold", "rating=0.95")
    for extra in ((), ("--top", "2"), ("--top", "1", "--mcut")):
        run("thresholds", "save", "-n", "mine", "-t", "0.2", *tags, *extra)
        run("thresholds", "save", "-n", "changed", "-p", "mine", *options)
        assert counts("-p", "mine", *options) == counts("-p", "changed")
        assert exported("-p", "mine", *options) == exported("-p", "changed")


def test_a_threshold_for_all_leaves_the_profiles_word_on_a_tag(run: Run) -> None:
    run("thresholds", "save", "-n", "mine", "-t", "0.3", "--tag-threshold", "dog=0.02", "--top", "9", "--mcut")
    rows = [
        json.loads(line) for line in run("counts", "--json", "-p", "mine", "-t", "0.85", "--no-mcut").out.splitlines()
    ]
    assert {row["tag"]: row["images"] for row in rows} == {"safe": 2, "dog": 2, "saber_(fate)": 1}
    run("thresholds", "save", "-n", "mine", "-p", "mine", "-t", "0.85", "--no-mcut")
    assert run("thresholds", "show", "mine", "--json").json["policy"] == {
        "threshold": 0.85,
        "tags": {"dog": 0.02},
        "top": 9,
    }
    run("thresholds", "save", "-n", "mine", "-p", "mine", "--no-top", "--tag-threshold", "dog=default")
    assert run("thresholds", "show", "mine", "--json").json["policy"] == {"threshold": 0.85}
    assert "contradict" in run("counts", "--top", "3", "--no-top", code=2).err


def test_a_change_from_the_command_line_loses_none_that_was_saved_meanwhile(run: Run, database_url: str) -> None:
    run("thresholds", "save", "-n", "mine", "-t", "0.3")
    database = open_database(database_url)
    with ThreadPoolExecutor(1) as thread:
        with database.write() as connection:
            model = models.latest(connection)
            profiles.hold(connection, model)
            other = thread.submit(run, "thresholds", "save", "-n", "mine", "-p", "mine", "--tag-threshold", "dog=0.7")
            time.sleep(2)  # the read is over if the command reads before its write lock
            profiles.save(connection, model, "mine", Policy(3000, tags={"cat": 6000}), source="a test")
        other.result()
    with database.read() as connection:
        assert profiles.find(connection, model, "mine@3").policy == Policy(3000, tags={"cat": 6000, "dog": 7000})
    database.close()


def test_what_changes_is_said_before_anything_is_written(run: Run) -> None:
    """From 0.35 to 0.5 the third image loses cat and the second one dog."""
    found = run("thresholds", "diff", "0.35", "0.5", "--json").json
    assert (found["images"], found["changed"]) == (4, 2)
    assert found["tags"] == [
        {"tag": "cat", "before": 2, "after": 1, "gained": 0, "lost": 1},
        {"tag": "dog", "before": 1, "after": 0, "gained": 0, "lost": 1},
    ]
    run("thresholds", "save", "-n", "low", "-t", "0.01", "--tag-threshold", "cat=off")
    text = run("thresholds", "diff", "default", "low", "--limit", "1").out
    assert "2 of 4 images changed (50.0%): 1 tag gained, 2 lost, 4 unchanged." in text
    assert "cat" in text
    assert "and 1 more tag;" in text
    assert run("thresholds", "diff", "low@1", "low").out.startswith("0 of 4 images changed")
    assert "no profile 'nobody'" in run("thresholds", "diff", "nobody", "low", code=2).err


def test_counts_by_every_kind_of_policy(run: Run) -> None:
    def counts(*arguments: str) -> dict[str, int]:
        lines = run("counts", "--json", *arguments).out.splitlines()
        return {row["tag"]: row["images"] for row in map(json.loads, lines)}

    assert counts() == {"safe": 2, "cat": 2, "dog": 1, "saber_(fate)": 1}
    assert counts("-t", "0.01") == {"safe": 2, "cat": 2, "dog": 2, "saber_(fate)": 1}
    assert counts("--category-threshold", "general=0.5") == {"safe": 2, "cat": 1, "saber_(fate)": 1}
    assert counts("--top", "1") == {"safe": 2, "saber_(fate)": 1}
    assert counts("--under", "s3://b/2") == {"cat": 1, "saber_(fate)": 1}
    run("thresholds", "save", "-n", "mine", "-t", "0.39", "--category-threshold", "rating=off")
    assert counts("-p", "mine") == {"cat": 1, "dog": 1, "saber_(fate)": 1}
    assert counts("-p", "mine", "--tag-threshold", "cat=0.3") == {"cat": 2, "dog": 1, "saber_(fate)": 1}
    outcome = run("counts", "--limit", "2")
    assert "0.5800" in outcome.out  # the mean of the cats
    assert "tiny at 0.35, the model's own: 4 tags, 6 times; showing the 2 most frequent." in outcome.err


def test_a_query_says_of_which_images(run: Run) -> None:
    """Of the images counted, and of those exported. A tag without a threshold uses the threshold in force."""

    def exported(*arguments: str) -> list[str]:
        return [json.loads(line)["uri"] for line in run("export", "-f", "jsonl", *arguments).out.splitlines()]

    counted = [json.loads(line) for line in run("counts", "--json", "--query", "cat").out.splitlines()]
    assert {row["tag"]: row["images"] for row in counted} == {"safe": 1, "cat": 2, "saber_(fate)": 1}
    assert exported("--query", "cat") == ["s3://b/0.jpg", "s3://b/2.jpg"]
    assert exported("-q", "cat", "-t", "0.5") == ["s3://b/0.jpg"]
    assert exported("-q", "cat ~ dog -category:character") == [
        "s3://b/0.jpg",
        "s3://b/1.jpg",
    ]
    assert exported("-q", "safe model:tiny", "--under", "s3://b/1") == ["s3://b/1.jpg"]
    assert "given twice" in run("export", "-q", "cat model:tiny", "--model", "tiny", code=2).err
    assert "no tag 'cta'" in run("counts", "-q", "cta", code=2).err
    assert "has no predictions" in run("export", "-q", "cat dog", code=2).err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["counts", "--tag-threshold", "cat"], "--tag-threshold is NAME=VALUE"),
        (["counts", "--tag-threshold", "cta=0.5"], "there is no tag 'cta'; did you mean 'cat'"),
        (["counts", "--category-threshold", "general=35"], "The threshold of general is a number between 0 and 1"),
        (["counts", "-t", "0.001"], "floor of 0.01"),
        (["counts", "-p", "nobody"], "there is no profile 'nobody'. Saved are: none."),
        (["thresholds", "import", "gone.csv", "-n", "x"], "gone.csv cannot be read"),
        (["thresholds", "save", "-n", "0.5", "-t", "0.5"], "cannot be the name of a profile"),
        (["thresholds", "save", "-n", "default", "-t", "0.5"], "default, off, latest, none are reserved"),
        (["thresholds", "diff", "default", "x@99999999999999999999"], "there is no profile 'x@99999999999999999999'"),
        (["thresholds", "diff", "0.1", "0.2", "--limit", "99999999999999999999"], "--limit"),
        (["counts", "--limit", "99999999999999999999"], "--limit"),
        (["counts", "--top", "99999999999999999999"], "--top"),
        (["counts", "-p", "x@99999999999999999999"], "there is no profile"),
        (["search", "cat", "--limit", "99999999999999999999"], "--limit"),
        (["export", "--format", "jsonl", "--max-tags", "99999999999999999999"], "--max-tags"),
    ],
)
def test_mistakes_are_sentences(run: Run, arguments: list[str], words: str) -> None:
    assert words in run(*arguments, code=2).err


@pytest.mark.parametrize("name", ["99999999999999999999", "9223372036854775808", "0", "\u0663", "-1", "1.5", "\udcff"])
@pytest.mark.parametrize(
    "command", [["counts"], ["thresholds", "list"], ["search", "cat"], ["status"], ["histogram", "cat"]]
)
def test_a_number_that_is_no_models_id_is_a_sentence(run: Run, command: list[str], name: str) -> None:
    outcome = run(*command, f"--model={name}", code=1)
    assert "The database has no model" in outcome.err


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"top": "abc"}, "top is a whole number from 1 to 2,147,483,647, not 'abc'"),
        ({"top": 2.5}, "not 2.5"),
        ({"mcut": "false"}, "mcut is true or false, not 'false'"),
        ({"tags": ["cat"]}, "tags is an object"),
        ({"tags": {"cat": True}}, "the threshold of 'cat'"),
        ({"tags": {"cat": float("nan")}}, "the threshold of 'cat' is a number between 0 and 1, or off, not nan"),
        ({"top": 12345678901234567890}, "not 12345678901234567890"),
    ],
)
def test_a_file_of_another_form_is_a_sentence(run: Run, tmp_path: Path, policy: object, words: str) -> None:
    (tmp_path / "policy.json").write_text(json.dumps({"policy": policy}))
    assert words in run("thresholds", "import", "policy.json", "-n", "mine", code=2).err
    assert run("thresholds", "list", "--json").json == []


def test_thresholds_below_the_floor_are_refused_or_raised(run: Run, tmp_path: Path) -> None:
    (tmp_path / "low.csv").write_text("tag,threshold\ncat,0.001\ndog,0.5\n")
    assert "0.001 for the tag cat cannot be answered" in run("thresholds", "import", "low.csv", "-n", "low", code=2).err
    run("thresholds", "import", "low.csv", "-n", "low", "--raise-to-floor")
    assert run("thresholds", "show", "low", "--json").json["policy"]["tags"] == {"cat": 0.01, "dog": 0.5}
    (tmp_path / "alien.csv").write_text("tag,threshold\na,0.5\nb,0.5\n")
    assert "has none of the 2 tags" in run("thresholds", "import", "alien.csv", "-n", "x", code=2).err
