"""Tables of thresholds as other programs write them."""

from pathlib import Path

import pytest

from db.errors import ThresholdError
from db.policies import NEVER, Policy
from db.threshold_tables import read_thresholds


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("calibration.csv", "tag,threshold\ncat,0.5\nbig_dog,0.25\n", Policy(tags={"cat": 5000, "big_dog": 2500})),
        ("calibration.csv", "cat,0.5\n=_=,0.25\n", Policy(tags={"cat": 5000, "=_=": 2500})),
        ("bom.csv", "\ufefftag,threshold\r\ncat,0.5\r\n\r\n", Policy(tags={"cat": 5000})),
        ("quoted.csv", 'Tag,Threshold,note\n"a,b",1,x\n"q""q",0,\n', Policy(tags={"a,b": 10_000, 'q"q': 0})),
        ("tabs.tsv", "tag\tthreshold\ncat\t.5\n", Policy(tags={"cat": 5000})),
        ("off.csv", "tag,threshold\ncat,off\ndog,inf\n", Policy(tags={"cat": NEVER, "dog": NEVER})),
        (
            "thresholds.csv",
            "category,name,alpha,threshold,f1\n0,general,1.0,0.35,0.6\n4,character,1.0,0.5,0.9\n",
            Policy(categories={"general": 3500, "character": 5000}),
        ),
        ("mine.csv", "category,threshold\ngeneral,0.35\n", Policy(categories={"general": 3500})),
        (
            "selected_tags.csv",
            "id,tag_id,name,category,count,best_threshold\n0,1,1girl,0,9,0.4\n1,2,miku,4,9,0.61\n",
            Policy(tags={"1girl": 4000, "miku": 6100}),
        ),
        ("flat.json", '{"cat": 0.5, "tags": "off"}', Policy(tags={"cat": 5000, "tags": NEVER})),
        (
            "shown.json",
            '{"source": "x", "policy": {"threshold": 0.3, "categories": {"a": 0.1}, "tags": {"b": "off"}, "top": 7}}',
            Policy(3000, {"a": 1000}, {"b": NEVER}, 7),
        ),
    ],
)
def test_a_table_is_read(tmp_path: Path, name: str, text: str, expected: Policy) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    table = read_thresholds(path)
    assert table.policy == expected
    assert table.rounded == 0


def test_more_than_four_decimals_are_rounded_up(tmp_path: Path) -> None:
    """What the file would not keep is not kept; a number that is exact at four decimals stays."""
    path = tmp_path / "fine.csv"
    path.write_text("tag,threshold\na,0.34561\nb,0.3456\nc,0.34560000\nd,1e-7\n")
    table = read_thresholds(path)
    assert table.policy.tags == {"a": 3457, "b": 3456, "c": 3456, "d": 1}
    assert table.rounded == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty.csv", "\n", "holds no thresholds"),
        ("x.csv", "tag,threshold\ncat,1.5\n", r"x\.csv, line 2: '1\.5' is no threshold between 0 and 1"),
        ("x.csv", "tag,threshold\ncat,\n", "line 2: '' is no threshold"),
        ("x.csv", "tag,threshold\ncat,nan\n", "line 2: 'nan' is no threshold"),
        ("x.csv", "tag,threshold\ncat\n", "line 2: too few columns"),
        ("x.csv", "tag,threshold\ncat,0.1\ndog,0.2\ncat,0.3\n", "line 4: 'cat' has a threshold already"),
        ("x.csv", "cat,0.1\ndog\n", "line 2: not a tag and a threshold"),
        ("x.csv", "what,ever\n1,2\n", "in no format known here.*tag,threshold"),
        ("x.csv", "id,threshold\n1,0.5\n", "columns id, threshold, and none called tag, name or category"),
        ("val.csv", "tag,threshold,tp,fp,tn,fn\ncat,0.01,1,2,3,4\n", "counts of a validation"),
        ("x.json", "[1]", "one JSON object"),
        ("x.json", "{", "is not JSON"),
        ("x.json", '{"policy": {"treshold": 1}}', "has no 'treshold'; it has threshold, categories"),
        ("x.json", '{"policy": {"top": "abc"}}', "top is a whole number, 1 or more, not 'abc'"),
        ("x.json", '{"policy": {"top": 2.5}}', "top is a whole number, 1 or more, not 2.5"),
        ("x.json", '{"policy": {"mcut": "false"}}', "mcut is true or false, not 'false'"),
        ("x.json", '{"policy": {"categories": ["a"]}}', "categories is an object, category to threshold"),
        ("x.json", '{"policy": {"tags": {"cat": null}}}', "the threshold of 'cat' is a number between 0 and 1, or off"),
        ("x.json", '{"a":' * 100_000, "is not JSON"),
    ],
)
def test_what_is_wrong_is_said_with_the_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ThresholdError, match=message):
        read_thresholds(path)


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ThresholdError, match="No such file"):
        read_thresholds(tmp_path / "gone.csv")
    (tmp_path / "utf16.csv").write_bytes("tag,threshold\ncat,0.5".encode("utf-16"))
    with pytest.raises(ThresholdError, match="not UTF-8"):
        read_thresholds(tmp_path / "utf16.csv")
