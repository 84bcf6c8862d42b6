"""The query language: what is read into which tree, where an error points, and that nothing else goes wrong."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.errors import SettingsError, ThresholdError
from db.ledger.models import Model, Tag
from db.policy.policies import Cut
from db.scores import NEVER
from db.search.query import (
    MAX_DEPTH,
    MAX_TERMS,
    And,
    Node,
    Not,
    Or,
    QueryError,
    Reaches,
    Under,
    named_model,
    parse,
    quoted,
)

NAMES = (
    *("cat", "dog", "bird", "off", "re:zero", ":3", "-_-", "~_~", "*_*", "saber_(fate)", "blonde_hair", "Red_Hair"),
    *(">_<", "long_hair", 'say_"hi"', "back\\slash", "", "café", "model", "xD", "XD", "twice", "twice"),
)
CHARACTERS = ("saber_(fate)", "re:zero")
TAGS = [Tag(name, "character" if name in CHARACTERS else "General" if name == "cat" else None) for name in NAMES]
FLOOR = 100
OWN = [NEVER if name == "off" else 3000 + position for position, name in enumerate(NAMES)]
"""Thresholds in force: a different one for each tag."""
MODEL = Model(1, "tiny", "", "", {}, FLOOR, 3500)
CUT = Cut(np.array(OWN, np.int16), FLOOR)


def read(query: str) -> Node:
    return parse(query, MODEL, TAGS, CUT, prefix_of=lambda text: f"<{text}>")


def own(*names: str) -> Reaches:
    """Their thresholds in force."""
    tag_ids = sorted({position for position, name in enumerate(NAMES) if name in names})
    return Reaches(tuple(tag_ids), tuple(OWN[tag_id] for tag_id in tag_ids))


def between(name: str, low: int, high: int = NEVER) -> Reaches:
    return Reaches((NAMES.index(name),), (low,), high)


cat, dog, bird = own("cat"), own("dog"), own("bird")
NOTHING = Reaches((), ())
HAIR = ("blonde_hair", "long_hair")


@pytest.mark.parametrize(
    ("query", "tree"),
    [
        ("cat", cat),
        ("  cat\n\t", cat),
        ("cat -dog", And((cat, Not(dog)))),
        ("cat ~ dog bird", And((Or((cat, dog)), bird))),
        ("bird cat ~ dog ~ -bird", And((bird, Or((cat, dog, Not(bird)))))),
        ("~cat bird ~-dog", And((bird, Or((cat, Not(dog)))))),
        ("( ~cat ~dog ) ~ bird", Or((Or((cat, dog)), bird))),
        ("( cat bird ) ~ dog", Or((And((cat, bird)), dog))),
        ("-( cat dog ) bird", And((Not(And((cat, dog))), bird))),
        ("~( cat ) ~-( dog bird )", Or((cat, Not(And((dog, bird)))))),
        ("( ( cat ) )", cat),
        ("off", NOTHING),
        ("-off", Not(NOTHING)),
        # thresholds and ranges
        ("cat:0.5", between("cat", 5000)),
        ("cat:.5", between("cat", 5000)),
        ("cat:1", between("cat", 10_000)),
        ("cat:0.0100", between("cat", 100)),
        ("cat:>=0.5", between("cat", 5000)),
        ("cat:0.2..", between("cat", 2000)),
        ("cat:0.2..0.4", between("cat", 2000, 4000)),
        ("cat:0.2...4", between("cat", 2000, 4000)),
        ("cat:0.2..1", between("cat", 2000)),
        ("cat:1..1", between("cat", 10_000)),
        ("cat:<0.4", Not(between("cat", 4000))),
        ("cat:..0.4", Not(between("cat", 4000))),
        ("cat:0..0.4", Not(between("cat", 4000))),
        ("-cat:..0.4", between("cat", 4000)),
        ("cat:..0.01", Not(between("cat", 100))),
        ("cat:<1", Not(between("cat", 10_000))),
        ("cat:..1", Not(NOTHING)),
        ("off:0.5", between("off", 5000)),
        # names that look like something else
        ("re:zero", own("re:zero")),
        ("re:zero:0.7", between("re:zero", 7000)),
        (":3", own(":3")),
        (":3:0.3", between(":3", 3000)),
        ("-:3:0.3", Not(between(":3", 3000))),
        ("-_-", own("-_-")),
        ("-_-:0.5", between("-_-", 5000)),
        ("--_-", Not(own("-_-"))),
        ("~_~ ~-_- ~cat", And((own("~_~"), Or((own("-_-"), cat))))),
        ("*_*", own("*_*")),
        (">_<:<0.4", Not(between(">_<", 4000))),
        ("saber_(fate)", own("saber_(fate)")),
        ("( saber_(fate) )", own("saber_(fate)")),
        # spelling
        ("CAT", cat),
        ("xd", own("xD", "XD")),
        ("xD", own("xD")),
        ("CAFÉ", own("café")),
        ("twice", own("twice")),
        # quotes
        ('"cat"', cat),
        ('"re:zero":0.5', between("re:zero", 5000)),
        ('-"-_-"', Not(own("-_-"))),
        ('"long hair"', own("long_hair")),
        (r'"say_\"hi\"":0.5 "back\\slash" "back\slash"', And((between('say_"hi"', 5000), *[own("back\\slash")] * 2))),
        ('"model":0.5', between("model", 5000)),
        # several tags
        ("*_hair", own(*HAIR)),
        ("*_HAIR", own(*HAIR, "Red_Hair")),
        ("*hair*", own(*HAIR)),
        ("b*_h*r:0.5", between("blonde_hair", 5000)),
        ("re:*", own("re:zero")),
        ("re:*:0.5..0.6", between("re:zero", 5000, 6000)),
        ("category:character", own(*CHARACTERS)),
        ("-category:CHARACTER:0.8", Not(Reaches(own(*CHARACTERS).tag_ids, (8000, 8000)))),
        ('category:"general":0.2', between("cat", 2000)),
        # other things
        ("under:/a/b:c", Under("</a/b:c>")),
        ('cat -under:"/a b/"', And((cat, Not(Under("</a b/>"))))),
        ("model:x cat", cat),
        ('cat MODEL:"x y" dog', And((cat, dog))),
    ],
)
def test_a_query_is_read_into_a_tree(query: str, tree: Node) -> None:
    assert read(query) == tree


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("^", "The query is empty. Name a tag"),
        ("  ^", "The query is empty"),
        ("model:x^", "The query is empty"),
        ("cat ^kat:0.5", "tiny: there is no tag 'kat'; did you mean 'cat'?"),
        ("cat -^kat", "there is no tag 'kat'"),
        ('cat ^"kat"', "there is no tag 'kat'"),
        ("^re:zeroo", "there is no tag 're:zeroo'; did you mean 're:zero'?"),
        ("-^~cat", "there is no tag '~cat'"),
        ("category:^chracter:0.5", "there is no category 'chracter'; did you mean 'character'?"),
        ("^*q*", "tiny: no tag matches '*q*'."),
        ("^(cat dog)", "The brackets of a group need white space around them."),
        ("cat ^( dog", "This bracket is never closed."),
        ("cat -^( dog", "This bracket is never closed."),
        ("cat ^) dog", "This bracket is never opened."),
        ("cat ^( )", "This group is empty."),
        ("cat ^~", "must be between two terms"),
        ("^~ cat", "must be between two terms"),
        ("cat ^~ ~ dog", "must be between two terms"),
        ("( cat ^~ )", "must be between two terms"),
        ("cat ^~dog", "~ must be before at least two terms"),
        ("~cat ^~ dog", "either before its terms"),
        ("cat ~ ^~dog", "either before its terms"),
        ("cat ~ dog ^~bird", "either before its terms"),
        ("~cat dog ^~ bird", "either before its terms"),
        ("cat ^-", "- must be directly before a term"),
        ("cat ^~-", "~- must be directly before a term"),
        ('cat ^"dog', "This quote is never closed."),
        (r'cat -^"dog\"', "This quote is never closed."),
        ('cat ^""', "nothing between these quotes"),
        ('"cat"^x', "A space, or a colon and a threshold, must follow the closing quote."),
        ("cat:^", "A threshold is a number between 0 and 1, not ''."),
        ("cat:^x", "A threshold is a number between 0 and 1, not 'x'."),
        ("cat:^0,5", "A threshold is a number between 0 and 1, not '0,5'."),
        ("cat:^35", "A threshold is a number between 0 and 1, not 35."),
        ("cat:^1.2.3", "A threshold is a number between 0 and 1, not '1.2.3'."),
        ("cat:^\u0660.\u0665", "A threshold is a number between 0 and 1"),
        ("cat:0.2..^1e-1", "A threshold is a number between 0 and 1, not '1e-1'."),
        ("cat:^0." + "3" * 30, "A threshold is a number"),
        ("cat:0.2..^0.12345", "at most four decimals"),
        ("cat:>=^0.12345", "at most four decimals"),
        ("cat:^>0.5", "compared with >= or <"),
        ("cat:^<=0.5", "compared with >= or <"),
        ("cat:^..", "A range needs a lower end, an upper end or both"),
        ("cat:^0.4..0.2", "The lower end of a range must be below its upper end."),
        ("cat:^0.4..0.4", "The lower end of a range must be below its upper end."),
        ("cat:^0.0099", "tiny was stored with a floor of 0.01: lower scores were not kept, so 0.0099 cannot be"),
        ("cat:^0", "floor of 0.01"),
        ("cat:^0..", "floor of 0.01"),
        ("cat:^..0.005", "floor of 0.01"),
        ("cat:^<0.005", "floor of 0.01"),
        ("*_hair:^..0.4", "needs a single tag, and '*_hair' matches several"),
        ("category:character:^<0.4", "needs a single tag"),
        ("model:x ^model:y", "model: is allowed only once"),
        ("cat ^-model:x", "model: must be outside of groups"),
        ("( ^model:x )", "model: must be outside of groups"),
        ("cat ~ ^model:x", "model: must be outside of groups"),
        ("model:^", "model: needs the name"),
        ('cat model:^""', "model: needs the name"),
        ('cat model:"x"^:0.5', "A space must follow the closing quote."),
        ("under:^", "under: needs a folder"),
        ("cat " * MAX_TERMS + "^dog", f"at most {MAX_TERMS} terms"),
        ("( " * MAX_DEPTH + "^( cat" + " )" * (MAX_DEPTH + 1), f"at most {MAX_DEPTH} deep"),
    ],
)
def test_an_error_points_at_the_character_and_says_what_is_wrong(query: str, message: str) -> None:
    """`^` in the query marks it here. The message ends with the query and a line with `^` under that character."""
    at = query.index("^")
    query = query[:at] + query[at + 1 :]
    with pytest.raises(QueryError) as raised:
        read(query)
    assert isinstance(raised.value, SettingsError)
    first, shown, pointer = str(raised.value).split("\n")
    assert message in first
    assert raised.value.at == at
    assert shown[pointer.index("^") :][:1] == (re.sub(r"\s", " ", query[at : at + 1]))


def test_the_most_terms_and_the_deepest_groups_are_read() -> None:
    assert read("cat " * MAX_TERMS) == And((cat,) * MAX_TERMS)
    assert read("( " * MAX_DEPTH + "cat" + " )" * MAX_DEPTH) == cat


def test_a_long_query_is_shown_around_the_error() -> None:
    with pytest.raises(QueryError) as raised:
        read("cat " * 50 + "kat\n" + "dog " * 40)
    _first, shown, pointer = str(raised.value).split("\n")
    assert len(shown) < 130
    assert shown[pointer.index("^") :].startswith("kat dog")


@pytest.mark.parametrize("rule", ["top", "MCut"])
def test_a_rule_about_other_tags_cannot_be_asked_of_one(rule: str) -> None:
    """A tag with a threshold can."""
    more = {"top": 5} if rule == "top" else {"mcut": np.zeros(len(TAGS), np.int16)}
    cut = Cut(CUT.scores, FLOOR, **more)
    with pytest.raises(ThresholdError, match=rf"^-cat has no threshold, and the policy has a {rule} rule"):
        parse("-cat", MODEL, TAGS, cut)
    assert parse("cat:0.5", MODEL, TAGS, cut) == between("cat", 5000)


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("cat", None),
        ("cat model:jtp-3", "jtp-3"),
        ('Model:"a b" cat', "a b"),
        ('"model:x"', None),
        ("model:", None),
        ("cat:model:x", None),
        ('cat model:7 "', "7"),
    ],
)
def test_the_model_is_known_before_its_tags_are(query: str, name: str | None) -> None:
    assert named_model(query) == name


# ── any names, any text ──

OPERATORS = ("(", ")", "-(", "~(", "~-(", "~")

nasty = st.text("ab_:~-*()\"\\'.<>=0159 \té😀\u0301", min_size=1, max_size=6)
words_of_queries = st.sampled_from(
    ["(", ")", "-(", "~(", "~", "-", '"', "cat", "-cat", "~dog", "cat:0.5", "*", "category:", "model:", "under:", ":"]
)


def as_model(names: list[str]) -> list[Tag]:
    return [Tag(name) for name in names]


def cut_for(names: list[str]) -> Cut:
    return Cut(np.full(len(names), 3500, np.int16), FLOOR)


@given(st.lists(nasty, min_size=1, max_size=5, unique=True), st.sampled_from(["", "-"]))
def test_any_name_in_quotes_is_that_tag(names: list[str], sign: str) -> None:
    query = " ".join(f"{sign}{quoted(name)}:0.5" for name in names)
    parts: list[Node] = [Reaches((tag_id,), (5000,)) for tag_id in range(len(names))]
    if sign:
        parts = [Not(part) for part in parts]
    assert parse(query, MODEL, as_model(names), cut_for(names)) == (parts[0] if len(parts) == 1 else And(tuple(parts)))


@given(nasty.filter(lambda name: not re.search(r'\s|^~?-?"', name) and name not in OPERATORS), nasty)
def test_a_word_that_is_a_tag_is_that_tag(name: str, other: str) -> None:
    """Whatever is in it, but for the operators themselves, and quotes where one would begin."""
    names = list(dict.fromkeys([name, other]))
    assert parse(name, MODEL, as_model(names), cut_for(names)) == Reaches((0,), (3500,))


@given(st.lists(nasty | words_of_queries, max_size=12).map(" ".join) | st.text())
def test_whatever_the_text_is_there_is_a_tree_or_an_error_with_a_place(query: str) -> None:
    named_model(query)
    at = 0
    try:
        read(query)
    except QueryError as error:
        at = error.at
    assert 0 <= at <= len(query)
