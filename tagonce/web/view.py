"""The view of a page, read from its address: thresholds and pictures. The address holds everything, so going back,
bookmarks and sharing work.

    /?profile=mine@2&t=0.4&c.character=0.8&tag.cat=off&sample=search&q=cat -dog&seed=7

The sliders change the profile, as `tagonce thresholds save --profile` does, and nothing is stored until it is saved.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.datastructures import QueryParams

from db.errors import SettingsError, ThresholdError
from db.ledger.models import Model, Tag
from db.policy import model_default, profiles
from db.policy.policies import Cut, Policy, resolve, to_cut, to_threshold
from db.policy.profiles import Profile
from db.scores import NEVER, to_score

THRESHOLD, CATEGORY, TAG = "t", "c.", "tag."
SIZES = (12, 24, 48, 96)
"""Numbers of pictures on a page."""
MOST_CHANGES = 200
"""Limit of thresholds in an address. Servers accept some thousand characters; more are saved as a profile."""
LONGEST_QUERY = 2_000
_SEEDS = 2**31
_COMMAND_TAGS = 20
"""Limit of thresholds on a command line for people; beyond it the command names a profile."""


class Sample(StrEnum):
    """The selection of pictures."""

    RANDOM = "random"
    DIVERSE = "diverse"
    NEAREST = "nearest"
    SEARCH = "search"


@dataclass(frozen=True, slots=True)
class View:
    """The content of an address."""

    profile: str = ""
    """`name` or `name@version`; empty for the model's default policy, or its own threshold without one."""
    changes: Policy = field(default_factory=Policy)
    """The changes to the profile."""
    sample: Sample = Sample.RANDOM
    query: str = ""
    seed: int = 1
    size: int = SIZES[1]

    @classmethod
    def of(cls, params: QueryParams) -> "View":
        """Read an address.

        Raises:
            SettingsError, ThresholdError: a value is invalid.
        """
        query = params.get("q", "").strip()
        if len(query) > LONGEST_QUERY:
            raise SettingsError(f"A search has at most {LONGEST_QUERY:,} characters.")
        said = params.get("sample", "")
        if said and said not in list(Sample):
            raise SettingsError(f"There is no sample {said[:40]!r}: say {', '.join(Sample)}.")
        sample = Sample(said) if said else Sample.SEARCH if query else Sample.RANDOM
        return cls(
            profile=params.get("profile", "").strip(),
            changes=_changes(params),
            sample=sample,
            query=query,
            seed=_number(params, "seed", 1) % _SEEDS,
            size=min(SIZES, key=lambda size: abs(size - _number(params, "size", SIZES[1]))),
        )

    def params(self, **changes: Any) -> dict[str, str]:
        """The fields of the address, without those at their default.

        Args:
            changes: fields of a view that differ.
        """
        view = replace(self, **changes)
        policy = view.changes
        named = [(CATEGORY, policy.categories), (TAG, policy.tags)]
        said = {
            "profile": view.profile,
            THRESHOLD: "" if policy.default is None else _text(policy.default),
            **{prefix + name: _text(score) for prefix, scores in named for name, score in scores.items()},
            "sample": "" if view.sample is Sample.RANDOM and not view.query else str(view.sample),
            "q": view.query,
            "seed": "" if view.seed == 1 else str(view.seed),
            "size": "" if view.size == SIZES[1] else str(view.size),
        }
        return {name: value for name, value in said.items() if value}

    def address(self, path: str = "/", *, also: Mapping[str, str] = MappingProxyType({}), **changes: Any) -> str:
        """A link to this view, or to one with other fields.

        Args:
            also: further fields of the page at `path`.
        """
        params = {**self.params(**changes), **also}
        return f"{path}?{urlencode(params)}" if params else path

    def with_tag(self, name: str, score: int) -> "View":
        """The view with another threshold of a tag."""
        return replace(self, changes=self.changes.changed(Policy(tags={name: score})))


@dataclass(frozen=True, slots=True)
class Thresholds:
    """A view resolved for a model."""

    profile: Profile | None
    base: Policy
    """The cut of the profile."""
    policy: Policy
    """The cut with the changes."""
    before: Cut
    cut: Cut

    @property
    def moved(self) -> bool:
        """Whether anything differs from the profile."""
        return self.policy != self.base

    def moved_by(self, model: Model, tags: list[Tag], changes: Policy) -> "Thresholds":
        """The same profile with these changes.

        Raises:
            ThresholdError: no such tag or category; or a threshold below the floor.
        """
        policy = self.base.changed(changes)
        cut = self.before if policy == self.base else resolve(model, tags, policy)
        return replace(self, policy=policy, cut=cut)

    @property
    def profile_name(self) -> str:
        """Empty without a profile."""
        return self.profile.name if self.profile else ""

    @property
    def label(self) -> str:
        """The profile in words."""
        return self.profile.label if self.profile else "the model's own threshold"


def thresholds_of(connection: Connection, model: Model, tags: list[Tag], view: View) -> Thresholds:
    """Resolve a view.

    Raises:
        ThresholdError: no such profile, tag or category; or a threshold below the floor.
    """
    profile = profiles.find(connection, model, view.profile) if view.profile else model_default.find(connection, model)
    base = profile.policy if profile else Policy()
    before = resolve(model, tags, base)
    return Thresholds(profile, base, base, before, before).moved_by(model, tags, view.changes)


def export_command(view: View, extra: str = "", *, default: str = "") -> str | None:
    """The command line that exports what the page shows; None if it is too long and needs a profile.

    Args:
        extra: the options that select model and database.
        default: the profile that applies where the view names none. It is named, because `--threshold` alone would
            apply to every tag.
    """
    if len(view.changes.tags) > _COMMAND_TAGS or view.changes.default == NEVER:
        return None  # --threshold is a number
    return f"tagonce export --out captions --overwrite{_base(view, default)}{_options(view.changes)}{extra}"


def save_command(view: View, name: str, extra: str = "", *, default: str = "") -> str:
    """The command line that saves what the page shows. The arguments are those of `export_command`."""
    return f"tagonce thresholds save --name {shlex.quote(name)}{_base(view, default)}{_options(view.changes)}{extra}"


def _base(view: View, default: str) -> str:
    name = view.profile or default
    return f" --profile {shlex.quote(name)}" if name else ""


def _options(policy: Policy) -> str:
    words = [] if policy.default is None else [f"--threshold {to_threshold(policy.default)}"]
    for option, scores in (("--category-threshold", policy.categories), ("--tag-threshold", policy.tags)):
        words += [f"{option} {shlex.quote(f'{name}={to_threshold(score)}')}" for name, score in scores.items()]
    return "".join(f" {word}" for word in words)


def _changes(params: QueryParams) -> Policy:
    said = [(name, value.strip()) for name, value in params.multi_items() if value.strip()]
    if len(said) > MOST_CHANGES:
        raise SettingsError(f"More than {MOST_CHANGES} thresholds in an address: save them as a profile.")
    default = next((value for name, value in said if name == THRESHOLD), None)
    return Policy(
        default=None if default is None else to_score(default),
        categories=_named(said, CATEGORY),
        tags=_named(said, TAG),
    )


def _named(said: list[tuple[str, str]], prefix: str) -> Mapping[str, int]:
    found = [(name.removeprefix(prefix), value) for name, value in said if name.startswith(prefix)]
    return {name: to_cut(value, what=f"The threshold of {name[:100]}") for name, value in found}


def _text(score: int) -> str:
    return str(to_threshold(score))


def _number(params: QueryParams, name: str, default: int) -> int:
    text = params.get(name, "").strip()
    if not text:
        return default
    try:
        return abs(int(text[:12]))
    except ValueError:
        raise ThresholdError(f"{name} is a whole number, not {text[:40]!r}.") from None
