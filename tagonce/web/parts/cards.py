"""Cards: pictures with their tags, as the pages show them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection

from db.read import tag_batches
from db.read.tag_batches import TagBatch
from db.sampling import ScoredImage
from db.truth import labels
from tagonce.web.state.site import Site
from tagonce.web.view import Thresholds

MOST_CHIPS = 30
"""Tags of a picture in the gallery; its own page shows all."""
_COLOURS = 8


@dataclass(frozen=True, slots=True)
class Chip:
    """A tag of a picture."""

    tag_id: int
    name: str
    category: str
    colour: int
    """Number of the category's colour."""
    score: int | None
    """None below the floor."""
    kept: bool
    gained: bool
    """Kept at the moved thresholds, and not by the profile."""
    verdict: bool | None
    """The label of the person at the browser."""
    others: bool | None
    """The majority of all labels."""


@dataclass(frozen=True, slots=True)
class Card:
    """A picture."""

    image_id: int
    uri: str
    width: int | None
    height: int | None
    chips: tuple[Chip, ...]
    more: int
    """Kept tags without a chip."""
    gained: int
    lost: tuple[str, ...]
    """Tags that the profile keeps and the moved thresholds do not."""

    @property
    def parts(self) -> tuple[Chip | str, ...]:
        """The displayed list of tags: chips, then names of lost tags."""
        return (*self.chips, *self.lost[:MOST_CHIPS])

    @property
    def digest(self) -> str:
        """Hash of everything that the card shows: 64 bits, valid in this process."""
        return f"{hash(self) & (1 << 64) - 1:016x}"


@dataclass(frozen=True, slots=True)
class Delta:
    """The difference between two cards of an image."""

    digest: str
    """Digest of the earlier card."""
    parts: Sequence[Chip | str | range]
    """Like `Card.parts`. A range is a run of parts of the earlier card, by position."""


@dataclass(frozen=True, slots=True)
class PictureVerdicts:
    """Labels of some images: image id to tag id to right or wrong."""

    own: Mapping[int, Mapping[int, bool]]
    most: Mapping[int, Mapping[int, bool]]


def verdicts(site: Site, connection: Connection, image_ids: Sequence[int], by: str) -> PictureVerdicts:
    """The labels of a person, and the majority's."""
    of_images = labels.of_images
    return PictureVerdicts(
        of_images(connection, site.model, image_ids, by=by), of_images(connection, site.model, image_ids)
    )


def cards_of(
    site: Site, found: TagBatch, thresholds: Thresholds, said: PictureVerdicts, *, most: int | None = MOST_CHIPS
) -> list[Card]:
    """Make a card for each image.

    Args:
        found: with all scores down to the model's floor.
        most: the number of chips, for kept tags only; None: all stored tags, and labelled ones that are not stored.
    """
    named = site.has_name[found.tag_ids]
    before, after = (tag_batches.kept_mask(found, cut) & named for cut in (thresholds.before, thresholds.cut))
    cards = []
    for row, image_id in enumerate(found.image_ids):
        here = np.arange(found.offsets[row], found.offsets[row + 1])
        here = here[named[here]]
        shown = here if most is None else here[after[here]][:most]
        own, all_ = said.own.get(image_id, {}), said.most.get(image_id, {})
        chips = [
            chip_of(site, tag_id, score, own, all_, kept_=is_kept, gained=is_kept and not was_kept)
            for tag_id, score, is_kept, was_kept in zip(
                *(column[shown].tolist() for column in (found.tag_ids, found.scores, after, before)), strict=True
            )
        ]
        if most is None:
            stored = {chip.tag_id for chip in chips}
            chips += [chip_of(site, one, None, own, all_) for one in {**own, **all_} if one not in stored]
        gained = int((after[here] & ~before[here]).sum())
        lost = tuple(site.tags[tag_id].name for tag_id in found.tag_ids[here[before[here] & ~after[here]]].tolist())
        more = 0 if most is None else max(int(after[here].sum()) - most, 0)
        size = found.widths[row], found.heights[row]
        cards.append(Card(image_id, found.uris[row], *size, tuple(chips), more, gained, lost))
    return cards


def deltas(cards: Sequence[Card], earlier: Sequence[Card], shown: Collection[str]) -> dict[int, Delta]:
    """The delta of each card, by image id.

    Args:
        earlier: cards of the same images, in step.
        shown: digests of the cards in the browser. Other cards have no delta.
    """
    pairs = zip(cards, earlier, strict=True)
    return {card.image_id: Delta(old.digest, _delta(card, old)) for card, old in pairs if old.digest in shown}


def _delta(card: Card, old: Card) -> list[Chip | str | range]:
    positions = {part: position for position, part in enumerate(old.parts)}
    parts: list[Chip | str | range] = []
    for part in card.parts:
        position = positions.pop(part, None)  # a name may be there twice, and its element only once
        last = parts[-1] if parts else None
        if position is None:
            parts.append(part)
        elif isinstance(last, range) and last.stop == position:
            parts[-1] = range(last.start, position + 1)
        else:
            parts.append(range(position, position + 1))
    return parts


def chip_of(
    site: Site,
    tag_id: int,
    score: int | None,
    own: Mapping[int, bool],
    most: Mapping[int, bool],
    *,
    kept_: bool = False,
    gained: bool = False,
) -> Chip:
    """A tag of a picture."""
    tag = site.tags[tag_id]
    colour = site.categories.get(tag.category or "", 0) % _COLOURS
    return Chip(tag_id, tag.name, tag.category or "", colour, score, kept_, gained, own.get(tag_id), most.get(tag_id))


def picture_of(site: Site, hit: ScoredImage, tag_id: int, line: int, said: PictureVerdicts) -> Card:
    """A card with a single tag."""
    own, most = said.own.get(hit.image_id, {}), said.most.get(hit.image_id, {})
    chip = chip_of(site, tag_id, hit.score, own, most, kept_=hit.score >= line)
    return Card(hit.image_id, hit.uri, None, None, (chip,), 0, 0, ())
