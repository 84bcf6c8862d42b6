"""Tables of thresholds as other programs write them."""

import json
from pathlib import Path

import pytest

from db.errors import ThresholdError
from db.ledger.models import Tag
from db.policy.policies import Policy
from db.policy.threshold_files import for_model, read_thresholds
from db.scores import NEVER

MANY = dict.fromkeys([f"tag_{number}" for number in range(131_073)], 0.5)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("calibration.csv", "tag,threshold\ncat,0.5\nbig_dog,0.25\n", Policy(tags={"cat": 5000, "big_dog": 2500})),
        ("calibration.csv", "cat,0.5\n=_=,0.25\n", Policy(tags={"cat": 5000, "=_=": 2500})),
        ("bom.csv", "\ufefftag,threshold\r\ncat,0.5\r\n\r\n", Policy(tags={"cat": 5000})),
        ("quoted.csv", 'Tag,Threshold,note\n"a,b",1,x\n"q""q",0,\n', Policy(tags={"a,b": 10_000, 'q"q': 0})),
        ("tabs.tsv", "tag\tthreshold\ncat\t.5\n", Policy(tags={"cat": 5000})),
        ("noid.csv", "name,category,best_threshold\ncat,0,0.5\n", Policy(tags={"cat": 5000})),
        ("by-tag.csv", "name,category,threshold\ncat,0,0.5\ndog,0,0.6\n", Policy(tags={"cat": 5000, "dog": 6000})),
        ("quoted.csv", 'tag,threshold\ncat,"0,35"\n', Policy(tags={"cat": 3500})),
        ("lines.csv", 'tag,threshold\n"a\nb",0.5\n', Policy(tags={"a\nb": 5000})),
        ("form-feed.csv", "tag,threshold\na\x0cb,0.5\n", Policy(tags={"a\x0cb": 5000})),
        ("comma.csv", 'tag,threshold\n"a,\n b",0.5\n"c\r\nd",0.25\n', Policy(tags={"a,\n b": 5000, "c\r\nd": 2500})),
        ("lines.tsv", 'tag\tthreshold\n"a\n\tb"\t0.5\n', Policy(tags={"a\n\tb": 5000})),
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
        (
            "x.csv",
            "tag,threshold\ncat,1.5\n",
            r"x\.csv, line 2: the threshold of 'cat' is a number between 0 and 1, or off, not '1\.5'\.",
        ),
        ("x.csv", "tag,threshold\ncat,\n", "holds no thresholds: that of cat is empty"),
        ("x.csv", "tag,threshold\ncat,nan\n", "holds no thresholds: that of cat is empty"),
        ("x.csv", "tag,threshold\ncat,0,35\n", "line 2: 3 columns, and the first line names 2. .*decimal comma"),
        ("x.csv", "tag,threshold\ncat\n", "line 2: too few columns"),
        ("x.csv", "tag,threshold\ncat,0.1\ndog,0.2\ncat,0.3\n", "line 4: 'cat' has a threshold already"),
        ("x.csv", "cat,0.1\ndog\n", "line 2: 1 columns, where a tag and a threshold are expected"),
        ("x.csv", "what,ever\n1,2\n", "is not a known format.*tag,threshold"),
        ("x.csv", "id,threshold\n1,0.5\n", "columns id, threshold; none of them is tag, name or category"),
        ("val.csv", "tag,threshold,tp,fp,tn,fn\ncat,0.01,1,2,3,4\n", "counts of a validation"),
        ("x.json", "[1]", "one JSON object"),
        ("x.json", "{", "is not JSON"),
        ("x.json", '{"policy": {"treshold": 1}}', "has no 'treshold'; it has threshold, categories"),
        ("x.json", '{"policy": {"top": "abc"}}', "top is a whole number from 1 to .*, not 'abc'"),
        ("x.json", '{"policy": {"top": 2.5}}', "top is a whole number from 1 to .*, not 2.5"),
        ("x.json", '{"policy": {"mcut": "false"}}', "mcut is true or false, not 'false'"),
        ("x.json", '{"policy": {"categories": ["a"]}}', "categories is an object, category to threshold"),
        ("x.json", '{"policy": {"tags": {"cat": null}}}', "the threshold of 'cat' is a number between 0 and 1, or off"),
        ("x.json", '{"a":' * 100_000, "is not JSON"),
        ("x.json", '{"cat": 0.1, "cat": 0.2}', "an object has the key 'cat' 2 times. Keep one of them."),
        ("x.json", '{"policy": {"tags": {"cat": 0.1, "cat": 0.2}}}', "an object has the key 'cat' 2 times"),
        ("x.json", '{"cat": NaN}', "the threshold of 'cat' is a number between 0 and 1, or off, not nan"),
        ("x.json", '{"cat": Infinity}', "the threshold of 'cat' is a number between 0 and 1, or off, not inf"),
        ("x.json", '{"cat": 1e400}', "the threshold of 'cat' is a number between 0 and 1, or off, not inf"),
        ("x.json", '{"policy": {"threshold": NaN}}', "threshold is a number between 0 and 1, or off, not nan"),
        ("x.json", '{"policy": {"threshold": Infinity}}', "threshold is a number between 0 and 1, or off, not inf"),
        ("x.json", '{"cat": true}', "the threshold of 'cat' is a number between 0 and 1, or off, not True"),
        ("x.json", '{"cat": {"threshold": 0.5}}', "the threshold of 'cat' is a number between 0 and 1, or off, not {"),
        (
            "x.json",
            '{"cat": "%s"}' % ("9" * 5000),
            "the threshold of 'cat' is a number between 0 and 1, or off, not '9",
        ),
        ("x.json", '{"policy": {"top": 1%s}}' % ("0" * 30), "top is a whole number from 1 to .*, not 1000"),
        ("x.json", '{"policy": {"top": 1%s}}' % ("0" * 5000), "top is a whole number from 1 to .*, not 1000"),
        ("x.json", json.dumps(MANY), "tags holds 131,073 thresholds. A model has at most 131,072 tags."),
        ("x.csv", "".join(f"{name},0.5\n" for name in MANY), "holds 131,073 thresholds. A model has at most 131,072"),
        (
            "x.tsv",
            "tag\tthreshold\ncat\ttrue\n",
            r"x\.tsv, line 2: the threshold of 'cat' is a number between 0 and 1, or off, not 'true'",
        ),
        ("x.csv", "tag,threshold\ncat,-inf\n", "is a number between 0 and 1, or off, not '-inf'"),
        ("x.csv", "tag,threshold\ncat,1e400\n", "is a number between 0 and 1, or off, not '1e400'"),
        (
            "x.csv",
            "tag,threshold\ncat,%s\n" % ("9" * 5000),
            "line 2: .* is a number between 0 and 1, or off, not '9{40}'",
        ),
    ],
)
def test_what_is_wrong_is_said_with_the_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ThresholdError, match=message):
        read_thresholds(path)
    with pytest.raises(ThresholdError, match=r"^.{1,400}$"):
        read_thresholds(path)


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ThresholdError, match="No such file"):
        read_thresholds(tmp_path / "gone.csv")
    (tmp_path / "latin.csv").write_bytes(b"tag,threshold\ncaf\xe9,0.5")
    with pytest.raises(ThresholdError, match="not UTF-8 text .*Save it as UTF-8"):
        read_thresholds(tmp_path / "latin.csv")


NAMES = [Tag("cat"), Tag("long_hair"), Tag("saber_(fate)", "character")]


@pytest.mark.parametrize(
    ("said", "expected", "unknown"),
    [
        (Policy(tags={"Long Hair": 1, "x": 3}), Policy(tags={"long_hair": 1}), ["x"]),
        (Policy(tags={r"saber \(fate\)": 2}), Policy(tags={"saber_(fate)": 2}), []),
        (Policy(3, {"Character": 1}, {"cat": 2}, 4), Policy(3, {"character": 1}, {"cat": 2}, 4), []),
        (Policy(categories={"cat": 1, "long hair": 2}), Policy(tags={"cat": 1, "long_hair": 2}), []),
        (Policy(categories={"charcter": 1}), Policy(categories={"charcter": 1}), []),
    ],
)  # fmt: skip
def test_names_are_given_the_spelling_of_the_model(said: Policy, expected: Policy, unknown: list[str]) -> None:
    assert for_model(said, NAMES) == (expected, unknown)


def test_a_tag_with_two_thresholds_is_refused() -> None:
    with pytest.raises(ThresholdError, match="'long_hair' has two thresholds, under 'long hair' and 'long_hair'"):
        for_model(Policy(tags={"long hair": 1, "long_hair": 2}), NAMES)


def test_an_empty_threshold_says_nothing(tmp_path: Path) -> None:
    """As pandas writes it: the cell of a tag without positives is empty."""
    (tmp_path / "t.csv").write_text("tag,threshold\ncat,0.5\ndog,\nfox,NaN\n")
    table = read_thresholds(tmp_path / "t.csv")
    assert (table.policy, table.without) == (Policy(tags={"cat": 5000}), ("dog", "fox"))
