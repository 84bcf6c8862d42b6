"""Captions: every option, and every mixture of them, gives what a plain loop over the tags gives."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.errors import SettingsError
from db.export.captions import Captioner, score_text, shuffle_hash
from db.export.items import unique_names
from db.export.options import CaptionOptions, Placement, Sort, Underscores, read_replacements, replacement
from db.export.text import JsonLines, json_inner, json_text
from db.ledger.models import Tag
from db.policy.policies import Cut
from db.read.tag_batches import TagBatch
from db.scores import NEVER
from tests.fixtures.straight import straight_caption, straight_items, straight_list

FLOOR = 100

TAGS = [
    Tag("general", "rating"), Tag("sensitive", "rating"), Tag("explicit", "rating"),
    Tag("long_hair", "general"), Tag("1girl", "general"), Tag("^_^", "general"), Tag("0_0", "general"),
    Tag("a_b", "general"), Tag("a_c", None), Tag("abc_", "general"), Tag(":3", "general"), Tag("re:zero", "copyright"),
    Tag("fate", "copyright"), Tag("saber_(fate)", "character"), Tag("saber_(cos)_(fate)", "character"),
    Tag("saber", "character"), Tag("(o)_(o)", "general"), Tag("odd_(x))", "character"), Tag("(fate)", "character"),
    Tag("x_(y)", "general"), Tag('say_"hi",_ok', "general"), Tag("back\\slash", "general"), Tag("日本_語", "general"),
    Tag("été", "artist"), Tag("", "general"), Tag(" ", "general"), Tag("general", "general"), Tag("line\nend", "meta"),
    Tag("grey_hair", "general"), Tag("gray_hair", "general"), Tag("🐈_cat", "general"), Tag("*", "general"),
    Tag("solo", "general"), Tag("solo", "meta"), Tag("=_=", "general"), Tag("explicit", "meta"),
    Tag("best_quality", "quality"), Tag("bad_quality", "quality"), Tag("general", "quality"),
]  # fmt: skip
NAMES = sorted({tag.name for tag in TAGS if tag.name.strip()})
CATEGORIES = ["rating", "quality", "general", "copyright", "character", "artist", "meta"]


def batch_of(rows: Sequence[dict[int, int]], uris: Sequence[str] | None = None) -> TagBatch:
    """Images with these scores by tag id, as the database hands them out."""
    ranked = [sorted(row.items(), key=lambda pair: (-pair[1], pair[0])) for row in rows]
    pairs = [pair for row in ranked for pair in row]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in ranked], dtype=np.int64)])
    return TagBatch(
        list(range(len(rows))),
        uris or [f"s3://b/{number}.jpg" for number in range(len(rows))],
        [640] * len(rows),
        [480] * len(rows),
        offsets,
        np.array([tag_id for tag_id, _ in pairs], dtype=np.int16),
        np.array([score for _, score in pairs], dtype=np.int16),
    )


def read(stored: Sequence[dict[int, int]], cut: Cut, uris: Sequence[str] | None = None) -> TagBatch:
    """What the database gives for a cut of single thresholds."""
    return batch_of(
        [{tag: score for tag, score in row.items() if score >= cut.scores[tag]} for row in stored],
        uris,
    )


def cut_at(score: int | Sequence[int], tags: Sequence[Tag] = TAGS) -> Cut:
    return Cut(np.broadcast_to(np.array(score, dtype=np.int16), (len(tags),)).copy(), FLOOR)


def caption(names: dict[str, float], tags: Sequence[Tag] = TAGS, **options: Any) -> str:
    """Of one image with these tags."""
    position = {tag.name: number for number, tag in reversed(list(enumerate(tags)))}
    captioner = Captioner(CaptionOptions(**options), tags, cut_at(5000, tags))
    stored = [{position[name]: round(probability * 10_000) for name, probability in names.items()}]
    batch = read(stored, captioner.reading)
    (text,) = captioner.captions(captioner.written(batch))
    return text


# ── by hand ──

HAIR = {"long_hair": 0.9, "1girl": 0.95, "^_^": 0.6, "a_b": 0.7}
PEOPLE = {"saber_(fate)": 0.9, "1girl": 0.8, "fate": 0.7, "été": 0.6}
RATED = {"general": 0.4, "sensitive": 0.3, "1girl": 0.8, "solo": 0.7}
GRADED = RATED | {"bad_quality": 0.1, "best_quality": 0.2}
BOTH_FIRST = {"rating": Placement.FIRST, "quality": Placement.FIRST}
BOTH_LAST = {"rating": Placement.LAST, "quality": Placement.LAST}


@pytest.mark.parametrize(
    ("tags", "options", "expected"),
    [
        (HAIR, {}, "1girl, long hair, a b, ^_^"),
        (HAIR, {"separator": " "}, "1girl long hair a b ^_^"),
        (HAIR, {"underscores": Underscores.KEEP}, "1girl, long_hair, a_b, ^_^"),
        (HAIR, {"underscores": Underscores.KOHYA}, "1girl, long hair, a_b, ^_^"),
        (HAIR, {"exclude": ("long hair", "a*")}, "1girl, ^_^"),
        (HAIR, {"replace": (("long hair", "hair_long"), ("a_b", ""))}, "1girl, hair long, ^_^"),
        (HAIR, {"replace": (("a_b", "1girl"), ("^_^", "1girl"))}, "1girl, long hair"),
        (HAIR, {"first": ("^_^", "nobody", "a b")}, "^_^, a b, 1girl, long hair"),
        (HAIR, {"first": ("^_^", "a b", "^_^")}, "^_^, a b, 1girl, long hair"),
        (HAIR, {"prepend": ("my_trigger", "x"), "append": ("end",)}, "my_trigger, x, 1girl, long hair, a b, ^_^, end"),
        (HAIR, {"prepend": ("a b",)}, "a b, 1girl, long hair, ^_^"),
        (HAIR, {"max_tags": 2, "sort": Sort.NAME, "prepend": ("z",)}, "z, 1girl, long hair"),
        (HAIR, {"max_tags": 2, "first": ("^_^",)}, "^_^, 1girl"),
        (HAIR, {"max_tags": 1, "first": ("^_^", "a b")}, "^_^"),
        (HAIR, {"sort": Sort.NAME}, "1girl, ^_^, a b, long hair"),
        (HAIR, {"sort": Sort.LIST}, "long hair, 1girl, ^_^, a b"),
        (HAIR, {"score_suffix": True}, "(1girl:0.95), (long hair:0.9), (a b:0.7), (^_^:0.6)"),
        ({}, {"prepend": ("a",), "append": ("b",)}, "a, b"),
        ({}, {}, ""),
        (PEOPLE, {}, "saber (fate), 1girl, fate, été"),
        (PEOPLE, {"escape": True}, r"saber \(fate\), 1girl, fate, été"),
        (PEOPLE, {"expand_characters": True}, "saber, fate, 1girl, été"),
        (PEOPLE, {"expand_characters": True, "exclude": ("fate",)}, "saber, 1girl, été"),
        (PEOPLE, {"expand_characters": True, "exclude": ("saber_(fate)",)}, "1girl, fate, été"),
        (PEOPLE, {"expand_characters": True, "replace": (("saber", "artoria"),)}, "artoria, fate, 1girl, été"),
        (PEOPLE, {"category_order": ("artist", "character")}, "été, saber (fate), 1girl, fate"),
        (PEOPLE, {"category_prefix": True}, "character:saber (fate), 1girl, copyright:fate, artist:été"),
        ({"saber_(cos)_(fate)": 0.9}, {"expand_characters": True}, "saber (cos), fate"),
        ({"odd_(x))": 0.9, "(fate)": 0.8}, {"expand_characters": True}, "odd (x)), (fate)"),
        ({"x_(y)": 0.9}, {"expand_characters": True}, "x (y)"),
        (RATED, {}, "1girl, solo"),
        (RATED, {"rating": Placement.FIRST}, "general, 1girl, solo"),
        (RATED, {"rating": Placement.LAST, "category_prefix": True}, "1girl, solo, rating:general"),
        (RATED, {"rating": Placement.THRESHOLD}, "1girl, solo"),
        (RATED | {"sensitive": 0.9}, {"rating": Placement.THRESHOLD}, "sensitive, 1girl, solo"),
        (RATED | {"sensitive": 0.9}, {"rating": Placement.LAST}, "1girl, solo, sensitive"),
        (RATED, {"rating": Placement.FIRST, "exclude": ("general",)}, "1girl, solo"),
        (RATED, {"rating": Placement.FIRST, "first": ("solo",), "max_tags": 1}, "solo, general"),
        (RATED, {"rating": Placement.FIRST, "first": ("solo",)}, "solo, general, 1girl"),
        (GRADED | {"best_quality": 0.9}, {}, "1girl, solo"),
        (GRADED, {"quality": Placement.FIRST}, "best quality, 1girl, solo"),
        (GRADED, {"quality": Placement.LAST}, "1girl, solo, best quality"),
        (GRADED | {"bad_quality": 0.2}, {"quality": Placement.LAST}, "1girl, solo, best quality"),
        (GRADED | {"bad_quality": 0.9}, {"quality": Placement.THRESHOLD}, "bad quality, 1girl, solo"),
        (GRADED, BOTH_FIRST, "general, best quality, 1girl, solo"),
        (GRADED, BOTH_LAST | {"category_prefix": True}, "1girl, solo, quality:best quality, rating:general"),
        (GRADED, {"rating": Placement.LAST, "quality": Placement.FIRST}, "best quality, 1girl, solo, general"),
        (GRADED, BOTH_FIRST | {"first": ("solo",)}, "solo, general, best quality, 1girl"),
        (GRADED, BOTH_FIRST | {"first": ("best_quality",), "max_tags": 1}, "general, best quality, 1girl"),
        (GRADED, BOTH_LAST | {"exclude": ("best_quality",)}, "1girl, solo, general"),
        (GRADED, BOTH_FIRST | {"replace": (("best_quality", "general"),)}, "general, 1girl, solo"),
        (
            GRADED | {"best_quality": 0.5},
            BOTH_LAST | {"replace": (("general", "best_quality"),), "score_suffix": True},
            "(1girl:0.8), (solo:0.7), (best quality:0.5)",
        ),
        (RATED, BOTH_FIRST, "general, 1girl, solo"),
        (HAIR, BOTH_LAST, "1girl, long hair, a b, ^_^"),
    ],
)
def test_a_caption_by_hand(tags: dict[str, float], options: dict[str, Any], expected: str) -> None:
    """Each option alone, at a threshold of 0.5."""
    assert caption(tags, **options) == expected


def test_an_unknown_category_to_come_first_is_an_error() -> None:
    with pytest.raises(SettingsError, match="no category 'charcter'; did you mean 'character'"):
        caption(HAIR, category_order=("charcter",))


def test_the_first_tag_of_equal_names_counts_with_its_score() -> None:
    """Two outputs of a model may be called the same; the more probable one is written."""
    tags = [Tag("cat", "general"), Tag("cat", "meta"), Tag("dog", "general")]
    captioner = Captioner(CaptionOptions(score_suffix=True, sort=Sort.LIST), tags, cut_at(0, tags))
    found = captioner.written(batch_of([{0: 500, 1: 9000, 2: 100}, {0: 300, 1: 300}]))
    assert captioner.captions(found) == ["(cat:0.9), (dog:0.01)", "(cat:0.03)"]


def test_a_shuffle_is_its_own_for_every_image_and_seed_and_the_same_in_every_batch() -> None:
    tags = [Tag(f"tag{number}") for number in range(30)]
    row = dict.fromkeys(range(30), 9000)
    options = CaptionOptions(sort=Sort.SHUFFLE, seed=5)
    captioner = Captioner(options, tags, cut_at(0, tags))
    one, two = captioner.captions(captioner.written(batch_of([row, row])))
    assert one != two
    assert sorted(one.split(", ")) == sorted(two.split(", "))
    alone = batch_of([row], ["s3://b/1.jpg"])
    assert captioner.captions(captioner.written(alone)) == [two]
    other = Captioner(CaptionOptions(sort=Sort.SHUFFLE, seed=6), tags, cut_at(0, tags))
    assert other.captions(other.written(alone)) != [two]


def test_the_shuffle_is_the_documented_hash() -> None:
    """The numbers must never change: captions in somebody's training set depend on them."""
    image, tag_ids = np.array([0x12345678, 0], dtype=np.uint64), np.array([7, 0])
    assert shuffle_hash(1, image, tag_ids).tolist() == [3412248620, 1581361928]


@pytest.mark.parametrize(("score", "text"), [(9123, "0.9123"), (9000, "0.9"), (10_000, "1"), (1, "0.0001"), (0, "0")])
def test_a_score_in_a_caption_has_no_zeros_at_its_end(score: int, text: str) -> None:
    assert score_text(score) == text


# ── rules ──


@pytest.mark.parametrize(
    ("text", "rule"), [("a=b", ("a", "b")), ("=_==x", ("=_=", "x")), ("a=", ("a", "")), ("a b=c d", ("a b", "c d"))]
)
def test_a_rule_is_split_at_its_last_equals_sign(text: str, rule: tuple[str, str]) -> None:
    assert replacement(text) == rule


@pytest.mark.parametrize("text", ["a", "=b", ""])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--replace is OLD=NEW"):
        replacement(text)


def test_rules_are_read_from_a_file_of_aliases(tmp_path: Path) -> None:
    file = tmp_path / "aliases.csv"
    file.write_text('\ufeffgrey_hair,gray_hair\n# comment\n\n"a,b", c\nold,\n', encoding="utf-8")
    assert read_replacements(file) == [("grey_hair", "gray_hair"), ("a,b", "c"), ("old", "")]
    file.write_text("a,b\njust_one\n")
    with pytest.raises(SettingsError, match="line 2 of .* is not `old,new`: just_one"):
        read_replacements(file)
    file.write_bytes(b"\xff,a\n")
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        read_replacements(file)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_replacements(tmp_path / "nothing.csv")


# ── against the plain loop ──

name = st.sampled_from(NAMES)
pattern = st.one_of(name, st.sampled_from(["*_hair", "saber*", "*", "*(*", "a*", "*a*e*", "f*e", "long hair"]))
new_name = st.one_of(name, st.sampled_from(["", "new_name", "new name", "x_(y)_(z)", "日,本", "  "]))
options_strategy = st.builds(
    CaptionOptions,
    separator=st.sampled_from([", ", " ", ",", '"; ', "\n"]),
    underscores=st.sampled_from(Underscores),
    escape=st.booleans(),
    exclude=st.lists(pattern, max_size=2).map(tuple),
    replace=st.lists(st.tuples(name, new_name), max_size=6).map(tuple),
    expand_characters=st.booleans(),
    first=st.lists(pattern, max_size=3).map(tuple),
    prepend=st.lists(st.sampled_from(["trigger_word", "long hair", "", "été"]), max_size=2).map(tuple),
    append=st.lists(st.sampled_from(["end", "1girl"]), max_size=2).map(tuple),
    category_order=st.lists(st.sampled_from(CATEGORIES), max_size=3, unique=True).map(tuple),
    category_prefix=st.booleans(),
    rating=st.sampled_from(Placement),
    quality=st.sampled_from(Placement),
    max_tags=st.one_of(st.none(), st.integers(1, 8)),
    sort=st.sampled_from(Sort),
    seed=st.integers(-3, 2**70),
    score_suffix=st.booleans(),
)
# Few different scores, so that ties are many.
row_strategy = st.dictionaries(st.integers(0, len(TAGS) - 1), st.sampled_from([100, 3500, 3501, 7000, 9123, 10_000]))
thresholds_strategy = st.one_of(
    st.sampled_from([100, 3500, 7000]).map(lambda score: [score] * len(TAGS)),
    st.lists(st.sampled_from([100, 3501, 7000, NEVER]), min_size=len(TAGS), max_size=len(TAGS)),
)


@given(rows=st.lists(row_strategy, max_size=4), thresholds=thresholds_strategy, options=options_strategy)
def test_any_options_give_what_the_plain_loop_gives(
    rows: list[dict[int, int]], thresholds: list[int], options: CaptionOptions
) -> None:
    """Captions, the same as lists, the same escaped for JSON, and the items that tables are made of."""
    captioner = Captioner(options, TAGS, cut_at(thresholds))
    batch = read(rows, captioner.reading)
    found = captioner.written(batch)
    straight = [(uri, row, TAGS, thresholds, options) for uri, row in zip(batch.uris, rows, strict=True)]
    assert captioner.captions(found) == [straight_caption(*each) for each in straight]
    assert captioner.lists(found) == [straight_list(*each) for each in straight]
    items = [item for each in straight for item in straight_items(*each)]
    assert [captioner.texts[item] for item in found.items] == [item.text for item in items]
    assert [captioner.categories[item] for item in found.items] == [item.category for item in items]
    assert found.scores.tolist() == [item.score for item in items]
    escaped = Captioner(options, TAGS, cut_at(thresholds), encode=json_inner)
    texts = escaped.captions(escaped.written(batch))
    assert [f'"{text}"' for text in texts] == [json_text(straight_caption(*each)) for each in straight]


def check_json_lines(
    rows: list[dict[int, int]], thresholds: list[int], options: CaptionOptions, tags: Sequence[Tag]
) -> None:
    captioner = Captioner(options, tags, cut_at(thresholds, tags), encode=json_inner)
    batch = read(rows, captioner.reading, [f's3://b/{number}"é.jpg' for number in range(len(rows))])
    lines = JsonLines(captioner, tags).text(batch, captioner.written(batch)).splitlines()
    names = unique_names(tags)
    for line, uri, row in zip(lines, batch.uris, rows, strict=True):
        kept = sorted((-score, tag) for tag, score in row.items() if score >= thresholds[tag])
        caption = straight_caption(uri, row, tags, thresholds, options)
        probabilities = {names[tag]: -score / 10_000 for score, tag in kept}
        expected = {"uri": uri, "width": 640, "height": 480, "caption": caption, "tags": probabilities}
        assert line == json.dumps(expected, ensure_ascii=False)


@given(rows=st.lists(row_strategy, max_size=4), thresholds=thresholds_strategy, options=options_strategy)
def test_json_lines_are_what_a_plain_loop_and_json_write(
    rows: list[dict[int, int]], thresholds: list[int], options: CaptionOptions
) -> None:
    check_json_lines(rows, thresholds, options, TAGS)


def test_a_model_may_have_more_pieces_of_text_than_a_smallint_numbers() -> None:
    tags = [Tag(f"tag_{number}", "general") for number in range(17_000)]
    rows = [{0: 9000, 16_999: 10_000}, {}, {16_998: 9000}]
    check_json_lines(rows, [5000] * len(tags), CaptionOptions(score_suffix=True, prepend=("a",), append=("b",)), tags)


often_placed = st.sampled_from([Placement.FIRST, Placement.LAST, *Placement])


@given(
    tags=st.lists(
        st.builds(Tag, st.sampled_from("abcd"), st.sampled_from(["rating", "quality", "general"])),
        min_size=3,
        max_size=8,
    ),
    rows=st.lists(st.lists(st.sampled_from([0, 100, 3500, 3501]), min_size=8, max_size=8), min_size=1, max_size=4),
    threshold=st.sampled_from([100, 3501, NEVER]),
    options=st.builds(
        CaptionOptions,
        rating=often_placed,
        quality=often_placed,
        exclude=st.lists(st.sampled_from("abcd"), max_size=1).map(tuple),
        first=st.lists(st.sampled_from("abcd"), max_size=2).map(tuple),
        max_tags=st.one_of(st.none(), st.integers(1, 3)),
        sort=st.sampled_from(Sort),
        category_prefix=st.booleans(),
        score_suffix=st.booleans(),
    ),
)
def test_rating_and_quality_of_any_model_go_where_the_plain_loop_puts_them(
    tags: list[Tag], rows: list[list[int]], threshold: int, options: CaptionOptions
) -> None:
    """In any order in the model's list, with ties, with equal names, and where a model lacks one or both of them."""
    stored = [{tag_id: score for tag_id, score in enumerate(row[: len(tags)]) if score} for row in rows]
    captioner = Captioner(options, tags, cut_at(threshold, tags))
    batch = read(stored, captioner.reading)
    thresholds = [threshold] * len(tags)
    expected = [
        straight_caption(uri, row, tags, thresholds, options) for uri, row in zip(batch.uris, stored, strict=True)
    ]
    assert captioner.captions(captioner.written(batch)) == expected


@pytest.mark.parametrize("options", [BOTH_FIRST, {"rating": Placement.FIRST}, {"quality": Placement.LAST}, {}])
def test_what_is_read_beside_the_policy_is_the_placed_categories(options: dict[str, Placement]) -> None:
    """Where nothing is placed the cut itself is read, so that the database applies a single threshold."""
    cut = cut_at(5000)
    reading = Captioner(CaptionOptions(**options), TAGS, cut).reading
    placed = [tag.category in options for tag in TAGS]
    assert reading.scores.tolist() == [FLOOR if one else 5000 for one in placed]
    assert (reading is cut) == (not options)
    unplaced = [Tag(tag.name, "general") for tag in TAGS]
    assert Captioner(CaptionOptions(**options), unplaced, cut).reading is cut


@given(
    rows=st.lists(row_strategy, max_size=3),
    thresholds=thresholds_strategy,
    rating=st.sampled_from(Placement),
    quality=st.sampled_from(Placement),
)
def test_what_the_policy_keeps_is_there_whatever_is_read_for_the_placed_categories(
    rows: list[dict[int, int]], thresholds: list[int], rating: Placement, quality: Placement
) -> None:
    captioner = Captioner(CaptionOptions(rating=rating, quality=quality), TAGS, cut_at(thresholds))
    kept = captioner.kept(read(rows, captioner.reading))
    expected = read(rows, cut_at(thresholds))
    assert kept.offsets.tolist() == expected.offsets.tolist()
    assert kept.tag_ids.tolist() == expected.tag_ids.tolist()
    assert kept.scores.tolist() == expected.scores.tolist()
