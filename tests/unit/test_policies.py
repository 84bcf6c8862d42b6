"""Policies: which layer and level decides for a tag, what is refused, and the way through JSON and back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.errors import ThresholdError
from db.ledger.models import Model, Tag
from db.names.plural import counted
from db.policy.policies import UNSET, Policy, resolve, to_cut, to_threshold, unknown_name
from db.scores import NEVER, SCALE

TAGS = [Tag("safe", "rating"), Tag("hair", "general"), Tag("saber_(fate)", "character"), Tag("plain")]
MODEL = Model(1, "tiny", "", "", {}, floor=100, default_threshold=3500)


def scores(policy: Policy = Policy(), model: Model = MODEL) -> list[int]:  # noqa: B008 - it is frozen
    return resolve(model, TAGS, policy).scores.tolist()


def test_without_a_word_the_models_own_threshold_counts() -> None:
    assert scores() == [3500] * 4
    assert resolve(MODEL, TAGS).uniform == 3500


def test_a_models_own_threshold_below_its_floor_is_the_floor() -> None:
    """Somebody stored with a high floor: the default must still be a question that can be answered."""
    assert scores(model=Model(1, "high", "", "", {}, floor=5000, default_threshold=2000)) == [5000] * 4


def test_a_tag_wins_over_its_category_and_that_over_all() -> None:
    policy = Policy(4000, {"general": 5000, "character": 6000}, {"saber_(fate)": 7000})
    assert scores(policy) == [4000, 5000, 7000, 4000]
    assert resolve(MODEL, TAGS, policy).uniform is None


def test_a_change_replaces_what_the_profile_says_on_the_same_thing_alone() -> None:
    """A threshold for all is no word on a tag or a category that has one of its own."""
    profile = Policy(2000, {"general": 3000, "character": 4000}, {"hair": 5000}, top=9, mcut=True)
    assert scores(profile) == [2000, 5000, 4000, 2000]
    assert scores(profile.changed(Policy(tags={"hair": 1000}))) == [2000, 1000, 4000, 2000]
    assert scores(profile.changed(Policy(categories={"character": 9000}))) == [2000, 5000, 9000, 2000]
    assert scores(profile.changed(Policy(8000))) == [8000, 5000, 4000, 8000]
    assert profile.changed(Policy(top=3)) == Policy(2000, profile.categories, profile.tags, 3, True)


def test_a_change_can_remove_what_the_profile_says() -> None:
    profile = Policy(2000, {"general": 3000}, {"hair": 5000}, top=9, mcut=True)
    assert profile.changed(Policy(top=UNSET)) == Policy(2000, {"general": 3000}, {"hair": 5000}, None, True)
    assert profile.changed(Policy(mcut=False)) == Policy(2000, {"general": 3000}, {"hair": 5000}, 9)
    assert profile.changed(Policy(UNSET, {"general": UNSET}, {"hair": UNSET}, UNSET, False)).is_empty
    assert Policy().changed(Policy(UNSET, {"general": UNSET}, {"plain": UNSET}, UNSET, False)).is_empty
    said = Policy(UNSET, {}, {"hair": UNSET}, UNSET, False).as_json()  # what the record of an export says
    assert said == {"threshold": "default", "tags": {"hair": "default"}, "top": "off", "mcut": False}


def test_mcut_without_a_threshold_starts_at_the_floor() -> None:
    """The model's own threshold is for cutting everywhere; one that is given is a lower bound."""
    assert scores(Policy(mcut=True)) == [100] * 4
    assert scores(Policy(2000, mcut=True)) == [2000] * 4
    cut = resolve(MODEL, TAGS, Policy(mcut=True))
    assert cut.mcut is not None
    assert len(set(cut.mcut.tolist())) == 4
    assert cut.lowest == 100
    assert cut.uniform is None


def test_off_is_a_threshold_that_nothing_reaches() -> None:
    assert to_cut("off") == to_cut(" OFF ") == NEVER > SCALE
    assert to_threshold(NEVER) == "off"
    assert scores(Policy(categories={"rating": NEVER})) == [NEVER, 3500, 3500, 3500]


@pytest.mark.parametrize("threshold", [35, "1.5", "x", -1])
def test_a_number_above_1_is_not_off_but_a_mistake(threshold: float | str) -> None:
    with pytest.raises(ThresholdError, match="between 0 and 1"):
        to_cut(threshold)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Policy(99), r"floor of 0\.01: .* so 0\.0099 for all tags cannot be answered\. Ask for 0\.01 or more"),
        (Policy(categories={"general": 99}), r"so 0\.0099 for the category general cannot be answered"),
        (Policy(tags={"hair": 0, "plain": 50}), r"so 0 for the tag hair, 0\.005 for the tag plain cannot"),
        (Policy(0, {"general": 1}, {"hair": 2, "plain": 3}), r"0\.0002 for the tag hair and 1 more cannot"),
        (Policy(tags={"hiar": 5000}), "tiny: there is no tag 'hiar'; did you mean 'hair'"),
        (Policy(categories={"characters": 5000}), "there is no category 'characters'; did you mean 'character'"),
        (Policy(top=0), "must be 1 or more, not 0"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(policy: Policy, message: str) -> None:
    with pytest.raises(ThresholdError, match=message):
        resolve(MODEL, TAGS, policy)


def test_changes_take_the_place_of_what_was_said_on_the_same_thing() -> None:
    base = Policy(2000, {"general": 3000}, {"hair": 4000}, 5)
    changed = base.changed(Policy(None, {"character": 1000}, {"hair": 9000}, mcut=True))
    assert changed == Policy(2000, {"general": 3000, "character": 1000}, {"hair": 9000}, 5, True)
    assert base.changed(Policy()) == base


def test_a_policy_can_be_raised_to_a_floor() -> None:
    raised = Policy(50, {"general": 100}, {"hair": 20, "plain": NEVER}).at_least(100)
    assert raised == Policy(100, {"general": 100}, {"hair": 100, "plain": NEVER})
    assert Policy().at_least(100) == Policy()


cuts = st.integers(0, NEVER)


@given(
    st.builds(
        Policy,
        st.none() | cuts,
        st.dictionaries(st.text(), cuts),
        st.dictionaries(st.text(), cuts),
        st.none() | st.integers(1, 100),
        st.sampled_from([None, True]),
    )
)
def test_a_policy_survives_the_way_through_json(policy: Policy) -> None:
    assert Policy.from_json(json.dumps(policy.as_json()), "It") == policy
    assert policy.is_empty == (policy.as_json() == {})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("nosuch", []), ("kat", ["cat"]), ("cta", ["cat"]), ("ostrch", ["ostrich"]), ("longhair", ["long_hair"]),
        ("x", []), ("", []), ("zebra crossing", []),
    ],
)  # fmt: skip
def test_only_what_is_close_is_suggested(name: str, meant: list[str]) -> None:
    said = unknown_name(name, ["ostrich", "cat", "long_hair"], "tag")
    assert said == f"there is no tag {name!r}" + (f"; did you mean {meant[0]!r}?" if meant else ".")


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 tags"), (1, "1 tag"), (2, "2 tags"), (1234, "1,234 tags"), (-1, "-1 tags")]
)
def test_a_number_and_its_noun_agree(number: int, words: str) -> None:
    assert counted(number, "tag") == words
    assert counted(1, "category", "categories") == "1 category"
    assert counted(2, "category", "categories") == "2 categories"


TOP = "top is a whole number from 1 to 2,147,483,647, not"
KEYS = "threshold, categories, tags, top, mcut, best_of"
A_THRESHOLD = "is a number between 0 and 1, or off, not"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"top": "abc"}', f"{TOP} 'abc'."),
        ('{"top": 2.5}', f"{TOP} 2.5."),
        ('{"top": 2.0}', f"{TOP} 2.0."),
        ('{"top": 0}', f"{TOP} 0."),
        ('{"top": -1}', f"{TOP} -1."),
        ('{"top": 2147483648}', f"{TOP} 2147483648."),
        ('{"top": 12345678901234567890}', f"{TOP} 12345678901234567890."),
        ('{"top": 1%s}' % ("0" * 5000), f"{TOP} 1{'0' * 59}."),
        ('{"top": true}', f"{TOP} True."),
        ('{"top": [3]}', f"{TOP} [3]."),
        ('{"mcut": "false"}', "mcut is true or false, not 'false'."),
        ('{"mcut": 1}', "mcut is true or false, not 1."),
        ('{"threshold": true}', f"threshold {A_THRESHOLD} True."),
        ('{"threshold": [0.5]}', f"threshold {A_THRESHOLD} [0.5]."),
        ('{"threshold": 1.5}', f"threshold {A_THRESHOLD} 1.5."),
        ('{"threshold": -1}', f"threshold {A_THRESHOLD} -1."),
        ('{"threshold": NaN}', f"threshold {A_THRESHOLD} nan."),
        ('{"threshold": Infinity}', f"threshold {A_THRESHOLD} inf."),
        ('{"threshold": 1e400}', f"threshold {A_THRESHOLD} inf."),
        ('{"threshold": 1%s}' % ("0" * 5000), f"threshold {A_THRESHOLD} 1{'0' * 59}."),
        ('{"threshold": "%s"}' % ("9" * 5000), f"threshold {A_THRESHOLD} '{'9' * 59}...."),
        ('{"threshold": "nan"}', "a threshold is a number between 0 and 1, not nan."),
        ('{"threshold": "inf"}', "a threshold is a number between 0 and 1, not inf."),
        ('{"threshold": ""}', "a threshold is a number between 0 and 1, not ''."),
        (
            '{"threshold": 0.12345}',
            "a threshold has at most four decimals, since scores are stored in ten-thousandths; 0.12345 has more.",
        ),
        ('{"tags": null}', "tags is an object, tag to threshold, not None."),
        ('{"tags": ["hair"]}', "tags is an object, tag to threshold, not ['hair']."),
        ('{"categories": [["a", 0.5]]}', "categories is an object, category to threshold, not [['a', 0.5]]."),
        ('{"categories": "general"}', "categories is an object, category to threshold, not 'general'."),
        ('{"tags": {"hair": null}}', f"the threshold of 'hair' {A_THRESHOLD} None."),
        ('{"tags": {"hair": false}}', f"the threshold of 'hair' {A_THRESHOLD} False."),
        ('{"tags": {"hair": NaN}}', f"the threshold of 'hair' {A_THRESHOLD} nan."),
        ('{"tags": {"hair": {"threshold": 0.5}}}', f"the threshold of 'hair' {A_THRESHOLD} {{'threshold': 0.5}}."),
        (r'{"tags": {"a\n": {}}}', rf"the threshold of 'a\n' {A_THRESHOLD} {{}}."),
        (r'{"tags": {"\ud800": {}}}', f"{A_THRESHOLD} {{}}."),
        (json.dumps({"tags": dict.fromkeys(map(str, range(131_073)), 0.5)}),
         "tags holds 131,073 thresholds. A model has at most 131,072 tags."),
        ('{"topp": 3}', f"a policy has no 'topp'; it has {KEYS}."),
        ('{"threshold": 0.5, "policy": {}}', f"a policy has no 'policy'; it has {KEYS}."),
        (r'{"\ud800": 3}', rf"a policy is a JSON object with {KEYS}, not {{'\ud800': 3}}."),
        ("[]", f"a policy is a JSON object with {KEYS}, not []."),
        ('{"best_of": "rating"}', "best_of is a list of categories, not 'rating'."),
        ('{"best_of": [3]}', "best_of is a list of categories, not 3."),
        ("null", f"a policy is a JSON object with {KEYS}, not None."),
        ('{"top": 3, "top": 4}', "an object has the key 'top' 2 times. Keep one of them."),
        ('{"tags": {"a": 1, "b": 1, "a": 0}}', "an object has the key 'a' 2 times. Keep one of them."),
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_json_of_another_form_is_refused_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ThresholdError) as raised:
        Policy.from_json(text, "The profile mine@1")
    assert str(raised.value).startswith("The profile mine@1: ")
    assert str(raised.value).endswith(sentence)


@pytest.mark.parametrize("text", ["", "{", "{'top': 3}", '{"top": 3,}', '{"a":' * 100_000])
def test_text_that_is_not_json_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ThresholdError, match=r"^The profile mine@1 is not JSON \(.*\)\.$"):
        Policy.from_json(text, "The profile mine@1")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["threshold", "categories", "tags", "top", "mcut", "x"])


@given(st.dictionaries(keys, anything, max_size=4) | anything)
def test_any_json_is_a_policy_or_a_sentence(said: object) -> None:
    try:
        policy = Policy.from_json(json.dumps(said), "It")
    except ThresholdError:
        return
    assert Policy.from_json(json.dumps(policy.as_json()), "It") == policy
