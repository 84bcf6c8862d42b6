"""Policies: what to keep of the tags of an image. Data, so that it can be named, stored, compared and applied later.

    Policy      as a person says it: one threshold for all, by category, by tag; the k best; MCut
    Cut         the same worked out for one model: the lowest score to keep of each of its tags

For each tag the first of these decides: what was said on the spot for the tag, for its category, for all; then the
profile's word for the tag, its category, all; then the model's own threshold.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from db.errors import ThresholdError
from db.models import Model, Tag
from db.schema import Int16Array
from db.scores import SCALE, to_probability, to_score

NEVER = SCALE + 1
"""A threshold that no score reaches."""
OFF = "off"
"""How people write NEVER."""
_SHOWN = 3
"""How many offenders an error names."""


def to_cut(threshold: float | str, *, what: str = "A threshold") -> int:
    """The score that a threshold asks for, NEVER for `off`.

    Raises:
        ThresholdError: it is no number between 0 and 1. 35 is refused too: it was meant as 0.35.
    """
    if isinstance(threshold, str) and threshold.strip().lower() == OFF:
        return NEVER
    return to_score(threshold, what=what)


def to_threshold(score: int) -> float | str:
    """The other way: a number from 0 to 1, or `off`."""
    return OFF if score >= NEVER else to_probability(score)


@dataclass(frozen=True, slots=True)
class Policy:
    """What to keep. Thresholds are scores (ten-thousandths) or NEVER; a tag is kept at or above its own."""

    default: int | None = None
    """For every tag that nothing else speaks of; None leaves it to what comes next (see the head of this file)."""
    categories: Mapping[str, int] = field(default_factory=dict)
    tags: Mapping[str, int] = field(default_factory=dict)
    """By name, as the model spells it."""
    top: int | None = None
    """At most so many tags an image, the most probable ones."""
    mcut: bool = False
    """Cut each category of an image at its widest gap between scores (`db.kept`); thresholds are lower bounds then."""

    @property
    def is_empty(self) -> bool:
        """It says nothing at all."""
        return self == Policy()

    def with_default(self, default: int | None) -> "Policy":
        """The same with another threshold for all tags; None changes nothing."""
        return self if default is None else replace(self, default=default)

    def at_least(self, floor: int) -> "Policy":
        """The same with no threshold below a score."""
        return replace(
            self,
            default=None if self.default is None else max(self.default, floor),
            categories={name: max(score, floor) for name, score in self.categories.items()},
            tags={name: max(score, floor) for name, score in self.tags.items()},
        )

    def changed(self, changes: "Policy") -> "Policy":
        """The same with what `changes` says in place of what was said on the same thing."""
        return Policy(
            default=self.default if changes.default is None else changes.default,
            categories={**self.categories, **changes.categories},
            tags={**self.tags, **changes.tags},
            top=self.top if changes.top is None else changes.top,
            mcut=self.mcut or changes.mcut,
        )

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values, thresholds as people write them; what says nothing is left out."""
        said: dict[str, Any] = {}
        if self.default is not None:
            said["threshold"] = to_threshold(self.default)
        for name in ("categories", "tags"):
            if values := getattr(self, name):
                said[name] = {key: to_threshold(score) for key, score in values.items()}
        if self.top is not None:
            said["top"] = self.top
        if self.mcut:
            said["mcut"] = True
        return said

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "Policy":
        """From what `as_json` gives."""
        threshold = said.get("threshold")
        return cls(
            default=None if threshold is None else to_cut(threshold),
            categories={name: to_cut(value) for name, value in said.get("categories", {}).items()},
            tags={name: to_cut(value) for name, value in said.get("tags", {}).items()},
            top=said.get("top"),
            mcut=said.get("mcut", False),
        )


@dataclass(frozen=True, slots=True)
class Cut:
    """A policy worked out for a model."""

    scores: Int16Array
    """(tags,) the lowest score to keep, by tag id; NEVER for a tag that is off."""
    floor: int
    """Of the model: lower scores are not stored."""
    top: int | None = None
    mcut: Int16Array | None = None
    """(tags,) the number of each tag's category, where MCut is applied."""

    @property
    def lowest(self) -> int:
        """What lies below it need not be read."""
        return self.floor if self.mcut is not None else int(self.scores.min(initial=NEVER))

    @property
    def uniform(self) -> int | None:
        """The one score that says it all, or None when there is no such score."""
        if self.top is not None or self.mcut is not None or not self.scores.size:
            return None
        first = int(self.scores[0])
        return first if bool((self.scores == first).all()) else None


def resolve(model: Model, tags: Sequence[Tag], *layers: Policy) -> Cut:
    """Work policies out for a model; the first layer that speaks of a tag decides.

    Args:
        tags: of the model, by output position.
        layers: what was said on the spot, then the profile. Without any, the model's own threshold counts.

    Raises:
        ThresholdError: a threshold is below the model's floor, or is for a tag or category that the model lacks.
    """
    for layer in layers:
        _check(model, tags, layer)
    mcut = any(layer.mcut for layer in layers)
    own = own_threshold(model, mcut=mcut)
    scores = np.array([_score(tag, layers, own) for tag in tags], dtype=np.int16)
    top = next((layer.top for layer in layers if layer.top is not None), None)
    return Cut(scores, model.floor, top, category_numbers(tags) if mcut else None)


def own_threshold(model: Model, *, mcut: bool = False) -> int:
    """The score from which on a tag is kept that nothing speaks of.

    Args:
        mcut: it looks for the cut itself, and the model's threshold, made for cutting everywhere, would be in its way.
    """
    return model.floor if mcut else max(model.default_threshold, model.floor)


def unknown_name(name: str, known: Collection[str], what: str) -> str:
    """The sentence for a name that is not there, with what may have been meant."""
    # About one wrong letter in five. difflib's own cutoff alone takes `ostrich` for `nosuch`.
    letters = max(len(name), 1)
    near = get_close_matches(name, known, n=_SHOWN, cutoff=max(0.6, (letters - 1 - letters // 5) / letters))
    return f"there is no {what} {name!r}" + (f"; did you mean {' or '.join(map(repr, near))}?" if near else ".")


def _check(model: Model, tags: Sequence[Tag], policy: Policy) -> None:
    categories = {tag.category for tag in tags if tag.category}
    names = {tag.name for tag in tags}
    for given, known, what in ((policy.categories, categories, "category"), (policy.tags, names, "tag")):
        for name in given:
            if name not in known:
                raise ThresholdError(f"{model.name}: {unknown_name(name, known, what)}")
    low = [(name, score) for name, score in _named(policy) if score < model.floor]
    if low:
        shown = ", ".join(f"{to_probability(score):g} for {name}" for name, score in low[:_SHOWN])
        more = f" and {len(low) - _SHOWN} more" if len(low) > _SHOWN else ""
        raise ThresholdError(
            f"{model.name} was stored with a floor of {to_probability(model.floor):g}: what lies below was not kept, "
            f"so {shown}{more} cannot be answered. Ask for {to_probability(model.floor):g} or more, or tag again with "
            "a lower --floor."
        )
    if policy.top is not None and policy.top < 1:
        raise ThresholdError(f"The number of tags to keep is 1 or more, not {policy.top}.")


def _named(policy: Policy) -> list[tuple[str, int]]:
    default = [] if policy.default is None else [("all tags", policy.default)]
    categories = [(f"the category {name}", score) for name, score in policy.categories.items()]
    return default + categories + [(f"the tag {name}", score) for name, score in policy.tags.items()]


def _score(tag: Tag, layers: Sequence[Policy], own: int) -> int:
    for layer in layers:
        if tag.name in layer.tags:
            return layer.tags[tag.name]
        if tag.category is not None and tag.category in layer.categories:
            return layer.categories[tag.category]
        if layer.default is not None:
            return layer.default
    return own


def category_numbers(tags: Sequence[Tag]) -> Int16Array:
    numbers: dict[str | None, int] = {}
    return np.array([numbers.setdefault(tag.category, len(numbers)) for tag in tags], dtype=np.int16)
