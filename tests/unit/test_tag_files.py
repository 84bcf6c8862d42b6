"""Tag lists: which are read, and which are refused."""

import json
from pathlib import Path

import pytest

from db.errors import ModelError
from db.ledger.models import Tag
from workers.models.tag_files import is_wd_list, read_label_names, read_tags

WD_HEAD = "tag_id,name,category,count\n"
WD_RATINGS = "1,general,9,5\n2,sensitive,9,4\n3,questionable,9,3\n4,explicit,9,2\n"


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_tags_json_is_sorted_by_index_not_by_key_order(tmp_path: Path) -> None:
    path = written(tmp_path / "tags.json", '{"wolf": 2, "anthro": 0, "fox": 1}')
    assert [tag.name for tag in read_tags(path)] == ["anthro", "fox", "wolf"]
    assert {tag.category for tag in read_tags(path)} == {None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 0, "b": 2}', "none at index 1"),
        ('{"a": 0, "b": 0}', "0 more than once"),
        ('{"a": 0, "a": 1}', "'a' more than once"),
        ('{"a": "0"}', "the index of 'a' is '0'"),
        ('{"a": true}', "the index of 'a' is True"),
        ("{}", "one JSON object"),
        ('["a", "b"]', "one JSON object"),
        ('{"a": 0', "not valid JSON"),
    ],
)
def test_a_tags_json_that_does_not_number_its_tags_is_refused_with_the_reason(
    tmp_path: Path, text: str, message: str
) -> None:
    path = written(tmp_path / "tags.json", text)
    with pytest.raises(ModelError, match=message) as caught:
        read_tags(path)
    assert str(path) in str(caught.value)


def test_a_tag_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tags\.json cannot be read: No such file"):
        read_tags(tmp_path / "tags.json")


def test_selected_tags_takes_the_row_as_index_and_names_the_categories(tmp_path: Path) -> None:
    rows = '99,b,0,1\n98,a,4,1\n97,"x,y",1,1\n96,c,3,1\n95,m,5,1\n94,r,9,1\n93,o,7,1\n92,n,,1\n91,s,species,1\n'
    path = written(tmp_path / "selected_tags.csv", WD_HEAD + rows)
    assert read_tags(path) == (
        Tag("b", "general"),
        Tag("a", "character"),
        Tag("x,y", "artist"),
        Tag("c", "copyright"),
        Tag("m", "meta"),
        Tag("r", "rating"),
        Tag("o", "category_7"),
        Tag("n", None),
        Tag("s", "species"),
    )


def test_an_empty_name_keeps_its_slot(tmp_path: Path) -> None:
    """Dropping it would move every later tag by one."""
    path = written(tmp_path / "selected_tags.csv", WD_HEAD + "1,a,0,1\n2,,0,1\n3,b,0,1\n4,,0,1\n")
    assert [tag.name for tag in read_tags(path)] == ["a", "", "b", ""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (WD_HEAD + "1,a,0,1\n2,a,4,1\n", "'a' more than once"),
        (WD_HEAD, "lists no tags"),
        ("id,tag\n1,a\n", "a line of column names that contains `name`"),
        (WD_HEAD + "1,a,0,1\n2", "row 3 has no name"),
        ("", "a line of column names"),
    ],
)
def test_a_broken_selected_tags_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_tags(written(tmp_path / "selected_tags.csv", text))


def test_a_csv_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "selected_tags.csv"
    path.write_bytes(WD_HEAD.encode() + b"1,caf\xe9,0,1\n")
    with pytest.raises(ModelError, match="is not UTF-8 text"):
        read_tags(path)


@pytest.mark.parametrize(
    "config",
    [
        {"label_names": ["a", "b"]},
        {"label_names": {"1": "b", "0": "a"}},
        {"pretrained_cfg": {"label_names": ["a", "b"]}},
        {"labels": ["a", "b"]},
    ],
)
def test_label_names_are_read_in_each_form_timm_has_written(config: dict[str, object]) -> None:
    assert read_label_names(Path("config.json"), config) == (Tag("a"), Tag("b"))


def test_label_names_that_skip_a_position_are_refused() -> None:
    with pytest.raises(ModelError, match="keys 0 to 1"):
        read_label_names(Path("config.json"), {"label_names": {"0": "a", "2": "b"}})


def test_label_names_of_another_kind_are_refused() -> None:
    with pytest.raises(ModelError, match="a list of names"):
        read_label_names(Path("config.json"), {"label_names": [1, 2]})


def test_a_configuration_without_labels_gives_none() -> None:
    assert read_label_names(Path("config.json"), {"num_classes": 3}) is None


def test_only_the_four_columns_and_the_four_ratings_make_a_wd_list(tmp_path: Path) -> None:
    """Other trainers keep the ratings, add a column, and preprocess differently."""
    wd = written(tmp_path / "wd.csv", WD_HEAD + WD_RATINGS + "5,solo,0,1\n")
    unrated = written(tmp_path / "unrated.csv", WD_HEAD + "5,solo,0,1\n" + WD_RATINGS)
    more = "".join(
        f"{line},{end}\n" for line, end in zip((WD_HEAD + WD_RATINGS).split(), ["best", *"1234"], strict=True)
    )
    other = written(tmp_path / "other.csv", more)
    assert is_wd_list(wd)
    assert not is_wd_list(unrated)
    assert not is_wd_list(other)
    assert not is_wd_list(tmp_path / "missing.csv")


def test_a_byte_order_mark_is_no_part_of_the_list(tmp_path: Path) -> None:
    path = tmp_path / "tags.json"
    path.write_text("\ufeff" + json.dumps({"a": 0}), encoding="utf-8")
    assert read_tags(path) == (Tag("a"),)
