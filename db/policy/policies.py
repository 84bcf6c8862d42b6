"""Policies: which tags of an image are kept. A policy is data: it can be named, stored, compared and applied later.

    Policy      a person's choice: a threshold for all tags, by category, by tag; the best tag of a category; the k best
                tags; MCut
    Cut         a policy resolved for one model: the lowest score to keep, for each of its tags

The threshold of a tag is the first that is set of: the tag's own, its category's, the policy's default, the model's
default. A change to a policy replaces the values that it sets and leaves the others: a new default does not change the
threshold of a tag. This holds for options beside `--profile`, for `thresholds save` and for the review page.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from typing import Any

import numpy as np

from db.arrays.types import Int16Array, Int32Array
from db.errors import ThresholdError
from db.ledger.models import Model, Tag
from db.scores import NEVER, to_probability, to_score

OFF = "off"
"""NEVER in text."""
UNSET = -1
"""A threshold or `top` in a change to a policy: the policy's value is removed."""
DEFAULT = "default"
"""UNSET in text; in a comparison of policies, the model's default threshold."""
_SHOWN = 3
"""Names and suggestions in an error message."""


def to_cut(threshold: float | str, *, what: str = "A threshold") -> int:
    """Convert a threshold to a score (ten-thousandths); `off` to NEVER.

    Args:
        what: the first words of the error message.

    Raises:
        ThresholdError: the threshold is not a number between 0 and 1 with at most four decimals. 35 is refused too:
            0.35 was meant.
    """
    if isinstance(threshold, str) and threshold.strip().lower() == OFF:
        return NEVER
    return to_score(threshold, what=what)


def to_threshold(score: int) -> float | str:
    """Convert a score to a number from 0 to 1, NEVER to `off`, UNSET to `default`."""
    if score == UNSET:
        return DEFAULT
    return OFF if score >= NEVER else to_probability(score)


@dataclass(frozen=True, slots=True)
class Policy:
    """Which tags to keep. Thresholds are scores (ten-thousandths) or NEVER; a tag is kept at or above its threshold.

    The same class holds a change to a policy, for `changed`: in a change, UNSET and `mcut=False` remove a value.
    """

    default: int | None = None
    """For tags without a threshold of their own or of their category; None: the model's default threshold."""
    categories: Mapping[str, int] = field(default_factory=dict)
    tags: Mapping[str, int] = field(default_factory=dict)
    """By name, in the model's spelling."""
    top: int | None = None
    """Largest number of tags per image; the most probable ones are kept."""
    mcut: bool | None = None
    """Cut each category of an image at the widest gap between its scores (`db.read.tag_batches`). Thresholds are then
    lower bounds."""
    best_of: tuple[str, ...] | None = None
    """Categories whose tags exclude each other, such as ratings: of those that reach their thresholds, an image keeps
    the most probable one, of equally probable ones the first of the model's list. In a change, () removes the value."""

    @property
    def is_empty(self) -> bool:
        """No value is set."""
        return self == Policy()

    def with_default(self, default: int | None) -> "Policy":
        """A copy with another default threshold; None changes nothing."""
        return self if default is None else replace(self, default=default)

    def at_least(self, floor: int) -> "Policy":
        """A copy whose thresholds are raised to a score where they are lower."""
        return replace(
            self,
            default=None if self.default is None else max(self.default, floor),
            categories={name: max(score, floor) for name, score in self.categories.items()},
            tags={name: max(score, floor) for name, score in self.tags.items()},
        )

    def changed(self, changes: "Policy") -> "Policy":
        """A copy in which the values set in `changes` replace those of this policy."""
        default = self.default if changes.default is None else changes.default
        top = self.top if changes.top is None else changes.top
        return Policy(
            default=None if default == UNSET else default,
            categories=_without_unset({**self.categories, **changes.categories}),
            tags=_without_unset({**self.tags, **changes.tags}),
            top=None if top == UNSET else top,
            mcut=(self.mcut if changes.mcut is None else changes.mcut) or None,
            best_of=_each_once(self.best_of if changes.best_of is None else changes.best_of),
        )

    def as_json(self) -> dict[str, Any]:
        """The values that are set, as JSON types; thresholds as numbers from 0 to 1, `off` or `default`."""
        values: dict[str, Any] = {}
        if self.default is not None:
            values["threshold"] = to_threshold(self.default)
        for name in ("categories", "tags"):
            if scores := getattr(self, name):
                values[name] = {key: to_threshold(score) for key, score in scores.items()}
        if self.top is not None:
            values["top"] = OFF if self.top == UNSET else self.top
        if self.mcut is not None:
            values["mcut"] = self.mcut
        if self.best_of is not None:
            values["best_of"] = list(self.best_of)
        return values

    @classmethod
    def from_json(cls, text: str, where: str) -> "Policy":
        """Parse the JSON of `as_json` of a policy that is not a change.

        Args:
            where: the first words of error messages.

        Raises:
            ThresholdError: the text is not JSON of a policy (`db.policy.policy_json`), or a threshold has more than
                four decimals.
        """
        from db.policy.policy_json import parse_json, parse_policy

        parsed = parse_policy(parse_json(text, where), where)
        cut = partial(to_cut, what=f"{where}: a threshold")
        return cls(
            default=None if parsed.threshold is None else cut(parsed.threshold),
            categories={name: cut(value) for name, value in parsed.categories.items()},
            tags={name: cut(value) for name, value in parsed.tags.items()},
            top=parsed.top,
            mcut=parsed.mcut or None,
            best_of=_each_once(parsed.best_of),
        )


def _each_once(categories: Iterable[str] | None) -> tuple[str, ...] | None:
    return tuple(dict.fromkeys(categories)) if categories else None


def _without_unset(scores: Mapping[str, int]) -> dict[str, int]:
    return {name: score for name, score in scores.items() if score != UNSET}


@dataclass(frozen=True, slots=True)
class Cut:
    """A policy resolved for a model."""

    scores: Int16Array
    """(tags,) the lowest score to keep, by tag id; NEVER for a tag that is off."""
    floor: int
    """The model's floor: lower scores are not stored."""
    top: int | None = None
    mcut: Int32Array | None = None
    """(tags,) the category number of each tag; None if MCut is not applied."""
    groups: Int32Array | None = None
    """(tags,) the number of each tag's exclusive group, -1 outside of them; None without such groups."""

    @property
    def has_rules(self) -> bool:
        """Whether more than thresholds decides: `top`, MCut or exclusive groups."""
        return self.top is not None or self.mcut is not None or self.groups is not None

    @property
    def lowest(self) -> int:
        """Lower scores need not be read."""
        return self.floor if self.mcut is not None else int(self.scores.min(initial=NEVER))

    @property
    def uniform(self) -> int | None:
        """The threshold that all tags share; None if they differ, or if another rule applies."""
        if self.has_rules or not self.scores.size:
            return None
        first = int(self.scores[0])
        return first if bool((self.scores == first).all()) else None


def resolve(model: Model, tags: Sequence[Tag], policy: Policy = Policy()) -> Cut:
    """Resolve a policy for a model.

    Args:
        tags: the model's tags, by output position.

    Raises:
        ThresholdError: a threshold is below the model's floor, the model has no tag or category of a name, or `top`
            is below 1.
    """
    _check(model, tags, policy)
    default = own_threshold(model, mcut=bool(policy.mcut)) if policy.default is None else policy.default
    if policy.categories or policy.tags:
        categories = policy.categories
        named = [policy.tags.get(tag.name, categories.get(tag.category or "", default)) for tag in tags]
        scores = np.array(named, dtype=np.int16)
    else:  # ten thousand tags without a look at each: the review page resolves three policies for a moved slider
        scores = np.full(len(tags), default, dtype=np.int16)
    mcut = category_numbers(tags) if policy.mcut else None
    return Cut(scores, model.floor, policy.top, mcut, _group_numbers(tags, policy.best_of))


def own_threshold(model: Model, *, mcut: bool = False) -> int:
    """The threshold, as a score, of tags for which a policy sets none.

    Args:
        mcut: MCut finds the cut itself, so the model's default threshold does not apply; the floor does.
    """
    return model.floor if mcut else max(model.default_threshold, model.floor)


def unknown_name(name: str, known: Collection[str], what: str) -> str:
    """A sentence for a name that does not exist, with similar names that do.

    Args:
        what: the kind of name: tag, category, profile.
    """
    # About one wrong letter in five. difflib's own cutoff alone takes `ostrich` for `nosuch`.
    letters = max(len(name), 1)
    near = get_close_matches(name, known, n=_SHOWN, cutoff=max(0.6, (letters - 1 - letters // 5) / letters))
    return f"there is no {what} {name!r}" + (f"; did you mean {' or '.join(map(repr, near))}?" if near else ".")


def below_floor(model: Model, asked: str) -> str:
    """The sentence for a question about scores that were not stored."""
    floor = f"{to_probability(model.floor):g}"
    return (
        f"{model.name} was stored with a floor of {floor}: lower scores were not kept, so {asked} cannot be "
        f"answered. Ask for {floor} or more, or tag again with a lower --floor."
    )


def _check(model: Model, tags: Sequence[Tag], policy: Policy) -> None:
    categories = [*policy.categories, *(policy.best_of or ())]
    _check_known(model, categories, (tag.category for tag in tags if tag.category), "category")
    _check_known(model, policy.tags, (tag.name for tag in tags), "tag")
    low = [f"{to_probability(score):g} for {name}" for name, score in _named(policy) if score < model.floor]
    if low:
        more = f" and {len(low) - _SHOWN} more" if len(low) > _SHOWN else ""
        raise ThresholdError(below_floor(model, ", ".join(low[:_SHOWN]) + more))
    if policy.top is not None and policy.top < 1:
        raise ThresholdError(f"The number of tags to keep must be 1 or more, not {policy.top}.")


def _check_known(model: Model, given: Collection[str], known: Iterable[str], what: str) -> None:
    names = set(known) if given else set()
    for name in given:
        if name not in names:
            raise ThresholdError(f"{model.name}: {unknown_name(name, names, what)}")


def _named(policy: Policy) -> list[tuple[str, int]]:
    default = [] if policy.default is None else [("all tags", policy.default)]
    categories = [(f"the category {name}", score) for name, score in policy.categories.items()]
    return default + categories + [(f"the tag {name}", score) for name, score in policy.tags.items()]


def _group_numbers(tags: Sequence[Tag], best_of: Sequence[str] | None) -> Int32Array | None:
    if not best_of:
        return None
    numbers: dict[str | None, int] = {category: number for number, category in enumerate(best_of)}
    return np.array([numbers.get(tag.category, -1) for tag in tags], dtype=np.int32)


def category_numbers(tags: Sequence[Tag]) -> Int32Array:
    """(tags,) a number for each category, in the order of first occurrence; tags without a category share one."""
    numbers: dict[str | None, int] = {}
    return np.array([numbers.setdefault(tag.category, len(numbers)) for tag in tags], dtype=np.int32)
