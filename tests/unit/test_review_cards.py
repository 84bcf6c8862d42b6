"""What the review page sends of a card that a browser has already."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tagonce.web.parts.cards import MOST_CHIPS, Card, Chip, deltas

CHIPS = st.builds(
    Chip,
    st.integers(0, 5),
    st.just("name"),
    st.just("general"),
    st.just(0),
    st.integers(0, 2),
    st.just(value=True),
    st.booleans(),
    st.sampled_from([None, True, False]),
    st.sampled_from([None, True]),
)
CARDS = st.builds(
    Card,
    st.just(1),
    st.just("s3://b/1"),
    st.none(),
    st.none(),
    st.lists(CHIPS, max_size=8, unique_by=lambda chip: chip.tag_id).map(tuple),
    st.integers(0, 3),
    st.integers(0, 3),
    st.lists(st.sampled_from("abcd"), max_size=MOST_CHIPS + 5).map(tuple),
)
"""Of one image. A model may have a name twice, so that two lost tags are the same text."""


@given(CARDS, CARDS)
def test_a_delta_makes_the_one_card_of_the_other(old: Card, card: Card) -> None:
    delta = deltas([card], [old], {old.digest})[1]
    had = list(old.parts)
    parts = [part for one in delta.parts for part in (had[one.start : one.stop] if isinstance(one, range) else [one])]
    assert tuple(parts) == card.parts
    positions = [place for one in delta.parts if isinstance(one, range) for place in one]
    assert len(positions) == len(set(positions)), "an element can be in one place only"
    assert not any(part in had for part in delta.parts if isinstance(part, Chip)), "a chip that is there is not sent"


@given(CARDS)
def test_a_card_that_does_not_change_is_sent_as_one_range(card: Card) -> None:
    if len(set(card.parts)) == len(card.parts):
        assert deltas([card], [card], {card.digest})[1].parts == ([range(len(card.parts))] if card.parts else [])


@given(CARDS, CARDS)
def test_a_card_that_is_not_shown_has_no_delta(old: Card, card: Card) -> None:
    assert deltas([card], [old], {card.digest} - {old.digest}) == {}


@given(CARDS)
def test_the_digest_is_of_all_that_a_card_shows(card: Card) -> None:
    assert replace(card).digest == card.digest
    others = [replace(card, more=card.more + 1), replace(card, uri="s3://b/2"), replace(card, lost=(*card.lost, "e"))]
    others += [
        replace(card, chips=(replace(chip, verdict=said), *card.chips[1:]))
        for chip in card.chips[:1]
        for said in (None, True, False)
        if said is not chip.verdict
    ]
    assert card.digest not in {other.digest for other in others}
