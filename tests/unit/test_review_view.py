"""What an address of the review page says, and the command lines that say the same."""

import shlex
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from db.errors import SettingsError, ThresholdError
from db.policy.policies import Policy
from db.scores import NEVER
from tagonce.options.policy_options import ThresholdOptions
from tagonce.web.view import (
    LONGEST_QUERY,
    MOST_CHANGES,
    SIZES,
    Sample,
    View,
    export_command,
    save_command,
)

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
SCORES = st.one_of(st.integers(0, 10_000), st.just(NEVER))
POLICIES = st.builds(
    Policy,
    st.one_of(st.none(), st.integers(0, 10_000)),
    st.dictionaries(NAMES, SCORES, max_size=3),
    st.dictionaries(NAMES, SCORES, max_size=3),
)
VIEWS = st.builds(
    View,
    st.sampled_from(["", "mine", "mine@2", "ü & b"]),
    POLICIES,
    st.sampled_from(Sample),
    st.sampled_from(["", "cat -dog", '"re:zero":0.5 ~ <b>', "a&b=c#d"]),
    st.integers(1, 2**31 - 1),
    st.sampled_from(SIZES),
)


def of(query: str) -> View:
    return View.of(QueryParams(query))


@given(VIEWS)
def test_an_address_says_all_of_a_view(view: View) -> None:
    path, _, query = view.address("/tag/1").partition("?")
    assert path == "/tag/1"
    assert of(query) == view


def test_what_says_nothing_is_left_out() -> None:
    assert View().address("/tags") == "/tags"
    assert View(changes=Policy(5000)).address() == "/?t=0.5"
    assert View(changes=Policy(5000)).address(changes=Policy(), seed=2) == "/?seed=2"


def test_empty_fields_of_a_form_say_nothing() -> None:
    assert of("profile=&t=&c.general=&tag.cat=&q=&sample=random&seed=1&size=24") == View()


def test_a_search_alone_is_what_is_shown() -> None:
    assert of("q=cat").sample is Sample.SEARCH
    assert of("q=cat&sample=random").sample is Sample.RANDOM


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("t=35", "between 0 and 1, not 35"),
        ("t=off", "between 0 and 1"),
        ("t=0.33333", "at most four decimals"),
        ("c.general=x", "The threshold of general is a number"),
        ("tag.cat=-1", "The threshold of cat is a number"),
        ("seed=x", "seed is a whole number"),
        ("size=1e9", "size is a whole number"),
        ("sample=all", "There is no sample 'all'"),
        (f"q={'a' * (LONGEST_QUERY + 1)}", "at most 2,000 characters"),
        ("&".join(f"tag.{number}=0.5" for number in range(MOST_CHANGES + 1)), "save them as a profile"),
    ],
)
def test_what_cannot_be_is_refused_in_words(query: str, words: str) -> None:
    with pytest.raises((SettingsError, ThresholdError), match=words):
        of(query)


def test_a_page_is_of_a_bounded_size() -> None:
    assert of("size=1000000").size == SIZES[-1]
    assert of("size=0").size == SIZES[0]


def test_a_tag_moves() -> None:
    view = View(changes=Policy(3000, {"general": 4000}, {"dog": 100})).with_tag("cat", 700)
    assert view.changes == Policy(3000, {"general": 4000}, {"dog": 100, "cat": 700})
    assert view.address("/tag/3", also={"show": "above"}, changes=Policy()) == "/tag/3?show=above"


def options(command: str) -> dict[str, list[str]]:
    """Values by option."""
    words = shlex.split(command)
    found: dict[str, list[str]] = {}
    for option, value in zip(words, [*words[1:], ""], strict=True):
        if option.startswith("--"):
            found.setdefault(option, []).append(value)
    return found


@given(POLICIES, st.sampled_from(["", "mine", "my own"]))
def test_the_command_line_says_the_same_policy(policy: Policy, profile: str) -> None:
    """As the options of `tagonce export` and `tagonce thresholds save` are read: changes to the profile."""
    view = View(profile, policy)
    for command in (export_command(view), save_command(view, "a b")):
        assert command is not None
        found = options(command)
        said = ThresholdOptions(
            threshold=found.get("--threshold", [None])[0],
            profile=found.get("--profile", [""])[0],
            category_threshold=found.get("--category-threshold"),
            tag_threshold=found.get("--tag-threshold"),
        )
        assert said.changes == policy
        assert said.profile == profile
    assert options(save_command(view, "a b"))["--name"] == ["a b"]


def test_the_command_line_of_what_was_not_moved_names_the_profile() -> None:
    assert export_command(View("my own"), " --model 3") == (
        "tagonce export --out captions --overwrite --profile 'my own' --model 3"
    )


@pytest.mark.parametrize("policy", [Policy(tags={f"tag{number}": 100 for number in range(21)}), Policy(NEVER)])
def test_what_no_command_line_says_needs_a_profile(policy: Policy) -> None:
    assert export_command(View(changes=policy)) is None


def test_addresses_survive_what_names_hold() -> None:
    view = View(changes=Policy(tags={"a&t=1": 100, 'x"><script>': 200}))
    assert dict(parse_qsl(view.address().partition("?")[2])) == {"tag.a&t=1": "0.01", 'tag.x"><script>': "0.02"}
