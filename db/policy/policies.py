"""Policies: what to keep of the tags of an image. Data, so that it can be named, stored, compared and applied later.

    Policy      as a person says it: one threshold for all, by category, by tag; the k best; MCut
    Cut         the same worked out for one model: the lowest score to keep of each of its tags

For each tag the first of these decides: the threshold of the tag, that of its category, the one for all, the model's
own. A change to a policy replaces what the policy says on the same thing and leaves the rest: a threshold for all does
not touch a threshold of one tag. That holds for options beside `--profile`, for `thresholds save` and for the review
page.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from db.errors import ThresholdError
from db.ledger.models import Model, Tag
from db.policy.policy_json import PolicyJson, parse_policy
from db.schema import Int16Array
from db.scores import NEVER, to_probability, to_score

OFF = "off"
"""How people write NEVER."""
UNSAID = -1
"""In a change to a policy, for a threshold or `top`: what the policy says of it is removed."""
DEFAULT = "default"
"""How people write UNSAID, and the model's own threshold where policies are compared."""
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
    """The other way: a number from 0 to 1, `off`, or in a change `default`."""
    if score == UNSAID:
        return DEFAULT
    return OFF if score >= NEVER else to_probability(score)


@dataclass(frozen=True, slots=True)
class Policy:
    """What to keep. Thresholds are scores (ten-thousandths) or NEVER; a tag is kept at or above its own.

    The same class holds a change to a policy, for `changed`: there UNSAID and `mcut=False` remove what the policy says.
    """

    default: int | None = None
    """For every tag that nothing else speaks of; None: the model's own threshold."""
    categories: Mapping[str, int] = field(default_factory=dict)
    tags: Mapping[str, int] = field(default_factory=dict)
    """By name, as the model spells it."""
    top: int | None = None
    """At most so many tags an image, the most probable ones."""
    mcut: bool | None = None
    """Cut each category of an image at its widest gap between scores (`db.read.tag_batches`). Thresholds are then lower
    bounds."""

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
        default = self.default if changes.default is None else changes.default
        top = self.top if changes.top is None else changes.top
        return Policy(
            default=None if default == UNSAID else default,
            categories=_without_unsaid({**self.categories, **changes.categories}),
            tags=_without_unsaid({**self.tags, **changes.tags}),
            top=None if top == UNSAID else top,
            mcut=(self.mcut if changes.mcut is None else changes.mcut) or None,
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
            said["top"] = OFF if self.top == UNSAID else self.top
        if self.mcut is not None:
            said["mcut"] = self.mcut
        return said

    @classmethod
    def from_json(cls, said: object) -> "Policy":
        """From what `as_json` gives of a policy that is no change.

        Raises:
            ThresholdError: it is something else.
        """
        return cls.of(parse_policy(said, "The policy"))

    @classmethod
    def of(cls, said: PolicyJson) -> "Policy":
        """From JSON of the right form.

        Raises:
            ThresholdError: a threshold is none, or has more than four decimals.
        """
        return cls(
            default=None if said.threshold is None else to_cut(said.threshold),
            categories={name: to_cut(value) for name, value in said.categories.items()},
            tags={name: to_cut(value) for name, value in said.tags.items()},
            top=said.top,
            mcut=said.mcut or None,
        )


def _without_unsaid(scores: Mapping[str, int]) -> dict[str, int]:
    return {name: score for name, score in scores.items() if score != UNSAID}


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


def resolve(model: Model, tags: Sequence[Tag], policy: Policy = Policy()) -> Cut:
    """Work a policy out for a model. Where it says nothing, the model's own threshold counts.

    Args:
        tags: of the model, by output position.

    Raises:
        ThresholdError: a threshold is below the model's floor, or is for a tag or category that the model lacks.
    """
    _check(model, tags, policy)
    default = own_threshold(model, mcut=bool(policy.mcut)) if policy.default is None else policy.default
    if policy.categories or policy.tags:
        categories = policy.categories
        named = [policy.tags.get(tag.name, categories.get(tag.category or "", default)) for tag in tags]
        scores = np.array(named, dtype=np.int16)
    else:  # ten thousand tags without a look at each: the review page resolves three policies for a moved slider
        scores = np.full(len(tags), default, dtype=np.int16)
    return Cut(scores, model.floor, policy.top, category_numbers(tags) if policy.mcut else None)


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
    _check_known(model, policy.categories, (tag.category for tag in tags if tag.category), "category")
    _check_known(model, policy.tags, (tag.name for tag in tags), "tag")
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


def _check_known(model: Model, given: Collection[str], known: Iterable[str], what: str) -> None:
    names = set(known) if given else set()
    for name in given:
        if name not in names:
            raise ThresholdError(f"{model.name}: {unknown_name(name, names, what)}")


def _named(policy: Policy) -> list[tuple[str, int]]:
    default = [] if policy.default is None else [("all tags", policy.default)]
    categories = [(f"the category {name}", score) for name, score in policy.categories.items()]
    return default + categories + [(f"the tag {name}", score) for name, score in policy.tags.items()]


def category_numbers(tags: Sequence[Tag]) -> Int16Array:
    numbers: dict[str | None, int] = {}
    return np.array([numbers.setdefault(tag.category, len(numbers)) for tag in tags], dtype=np.int16)
