"""The thresholds in a model's folder become its policy."""

import csv
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from db.errors import ModelError
from db.policy.policies import Policy
from db.scores import NEVER
from tests.fixtures.checkpoints import TAGS, write_timm, write_wd
from workers.models.folder import read_folder
from workers.models.thresholds import best_f1

CATEGORIES = {"0": "general", "4": "character", "9": "rating"}
RATINGS = ("general", "sensitive", "questionable", "explicit")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A timm checkpoint with `label_names`, in which no thresholds are."""
    return write_timm(tmp_path_factory.mktemp("models") / "plain")


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """The same, to add files to."""
    copy = tmp_path / "model"
    copy.mkdir()
    for file in checkpoint.iterdir():
        (copy / file.name).hardlink_to(file)
    return copy


def write_table(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def policy_of(folder: Path) -> Policy:
    return read_folder(folder).policy


def test_a_folder_without_thresholds_has_an_empty_policy(folder: Path) -> None:
    assert policy_of(folder) == Policy()


@pytest.mark.parametrize("column", ["best_threshold", "threshold"])
def test_the_column_of_selected_tags_is_by_tag_and_a_blank_one_is_never(folder: Path, column: str) -> None:
    rows = [(row, name, 0, 5, ["0.35", "0.12345", "", "nan"][row % 4]) for row, name in enumerate(TAGS)]
    write_table(folder / "selected_tags.csv", ["tag_id", "name", "category", "count", column], rows)
    found = policy_of(folder)
    assert [found.tags[name] for name in TAGS[:4]] == [3500, 1235, NEVER, NEVER]
    assert (len(found.tags), found.default, found.categories) == (len(TAGS), None, {})


def test_an_empty_column_gives_no_thresholds(folder: Path) -> None:
    rows = [(row, name, 0, 5, "") for row, name in enumerate(TAGS)]
    write_table(folder / "selected_tags.csv", ["tag_id", "name", "category", "count", "best_threshold"], rows)
    assert policy_of(folder) == Policy()


def test_thresholds_by_category_go_by_the_numbers_of_the_tag_list(folder: Path) -> None:
    """Number 5 is `meta` on Danbooru and `species` on e621: the category of the tags with this number is meant."""
    rows = [(row, name, [0, 5][row % 2], 5) for row, name in enumerate(TAGS)]
    write_table(folder / "selected_tags.csv", ["tag_id", "name", "category", "count"], rows)
    header = ["category", "name", "alpha", "threshold", "f1"]
    write_table(folder / "thresholds.csv", header, [(0, "general", 1, 0.3, 0.6), (5, "species", 1, 0.45, 0.7)])
    tags = read_folder(folder).tags
    assert policy_of(folder).categories == {tags[0].category: 3000, tags[1].category: 4500}


def test_a_calibration_is_by_tag_and_a_blank_one_is_never(folder: Path) -> None:
    rows = [("canine", 0.41), ("domestic cat", ""), ("no_such_tag", 0.5)]
    write_table(folder / "jtp-3-calibration.csv", ["tag", "threshold"], rows)
    assert policy_of(folder).tags == {"canine": 4100, "domestic_cat": NEVER}


def test_a_calibration_of_another_model_is_refused(folder: Path) -> None:
    write_table(folder / "calibration.csv", ["tag", "threshold"], [("no_such_tag", 0.5)])
    with pytest.raises(ModelError, match="calibration.csv has no threshold of a tag of this model"):
        policy_of(folder)


def test_a_line_for_each_tag_where_one_is_never(folder: Path) -> None:
    path = folder / "ram_tag_list_threshold.txt"
    path.write_text("\n".join(["0.65", "1.0", *["0.45"] * (len(TAGS) - 2)]))
    assert list(policy_of(folder).tags.values()) == [6500, NEVER, *[4500] * (len(TAGS) - 2)]
    path.write_text("0.65\n1.0\n")
    with pytest.raises(ModelError, match=f"has 2 thresholds, and the tag list {len(TAGS)} tags"):
        policy_of(folder)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_the_counts_of_a_validation_give_the_best_f1(folder: Path, dtype: type) -> None:
    """Against a plain loop over the definition."""
    random = np.random.default_rng(3)
    counts = random.integers(0, 400, (len(TAGS), 99, 4)).astype(dtype)
    counts[:, :, 1] *= random.integers(1, 60, (len(TAGS), 1)).astype(dtype)  # the precision of some is low
    counts[0, :, 0] = 0
    counts[1, :, 1] = counts[1, :, 0] * 9  # exactly 0.1
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(tensors | {"validation": counts}, folder / "model.safetensors")

    def straight(of_tag: np.ndarray) -> int:
        best, found = -1.0, NEVER
        for step, (tp, fp, _tn, fn) in enumerate(of_tag.tolist(), start=1):
            f1 = 2 * tp / (2 * tp + fp + fn)
            if tp and 10 * tp >= tp + fp and f1 > best:
                best, found = f1, step * 100
        return found

    expected = [straight(of_tag) for of_tag in counts]
    assert policy_of(folder).tags == dict(zip(TAGS, expected, strict=True))
    assert expected[0] == NEVER
    assert expected[1] < NEVER
    assert len(set(expected)) > 5


def test_equal_f1_takes_the_lowest_threshold_and_no_count_is_never() -> None:
    counts = np.zeros((2, 99, 4), dtype=np.int64)
    counts[0, 10:20] = 5, 1, 0, 1
    assert best_f1(counts).tolist() == [1100, NEVER]


def test_a_validation_of_another_number_of_tags_is_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(tensors | {"validation": np.zeros((3, 99, 4), np.int32)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=rf"\[3, 99, 4\], where \[{len(TAGS)}, 99, 4\] was expected"):
        policy_of(folder)


def test_a_configuration_has_thresholds_by_category_and_one_for_the_rest(folder: Path) -> None:
    rows = [(row, name, [0, 1, 4][row % 3], 5) for row, name in enumerate(TAGS)]
    write_table(folder / "selected_tags.csv", ["tag_id", "name", "category", "count"], rows)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    stated = {"general": 0.17, "style": 0.15, "copyright": 0.24}
    (folder / "config.json").write_text(json.dumps(config | {"category_best_threshold": stated, "best_threshold": 0.2}))
    assert policy_of(folder) == Policy(2000, {"general": 1700, "artist": 1500})
    (folder / "model.json").write_text('{"default_threshold": 0.4}')
    spec = read_folder(folder)
    assert (spec.policy.default, spec.default_threshold) == (None, 0.4)


@pytest.mark.parametrize(
    ("file", "stated"),
    [("tags_v0.9_13k.json", {"general": 3000, "character": 8500}), ("tag_mapping.json", {"general": 5500})],
)
def test_thresholds_that_only_the_authors_program_states(folder: Path, file: str, stated: dict[str, int]) -> None:
    categories = [0, 4] if "character" in stated else [0, 1]
    rows = [(row, name, categories[row % 2], 5) for row, name in enumerate(TAGS)]
    write_table(folder / "selected_tags.csv", ["tag_id", "name", "category", "count"], rows)
    (folder / file).write_text("{}")
    assert policy_of(folder).categories == stated


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("calibration.csv", "tag,threshold\ncanine,1.5\n", "the threshold of 'canine' is a number between 0 and 1"),
        ("ram_tag_list_threshold.txt", "2\n" * len(TAGS), "line 1: a threshold is a number between 0 and 1, not '2'"),
        ("thresholds.csv", "category,name,threshold\n0,general,many\n", "line 2: a threshold is a number"),
    ],
)
def test_a_number_that_is_no_threshold_is_refused_with_its_place(
    folder: Path, name: str, text: str, sentence: str
) -> None:
    (folder / name).write_text(text)
    with pytest.raises(ModelError, match=sentence):
        policy_of(folder)


def test_thresholds_are_not_part_of_the_identity(folder: Path) -> None:
    before = read_folder(folder)
    write_table(folder / "calibration.csv", ["tag", "threshold"], [("canine", 0.41)])
    after = read_folder(folder)
    assert before.policy != after.policy
    assert before.identity() == after.identity() == replace(after, policy=Policy()).identity()


def test_a_wd_tagger_brings_none(tmp_path: Path) -> None:
    assert policy_of(write_wd(tmp_path / "wd")) == Policy()
