"""The options that say what to keep, `--threshold` and its kin. Several commands share them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from db.errors import ThresholdError
from db.ledger import models
from db.ledger.models import Model
from db.policy import profiles
from db.policy.policies import DEFAULT, UNSAID, Cut, Policy, own_threshold, resolve, to_cut, to_threshold
from db.policy.profiles import Profile
from db.scores import to_probability


@dataclass(frozen=True, slots=True)
class Resolved:
    """What was asked for, and what it comes to."""

    cut: Cut
    policy: Policy
    """Said on the command line; with a profile, changes to that."""
    profile: Profile | None
    model: Model

    @property
    def label(self) -> str:
        """In words, for a summary: `0.35`, `mine@2 and --threshold`, `the model's own 0.2`."""
        said = self.policy.as_json()
        if set(said) == {"threshold"} and self.profile is None:
            return str(said["threshold"])
        parts = [self.profile.label] if self.profile else []
        parts += [f"{name} {value}" for name, value in said.items() if not isinstance(value, dict | bool)]
        parts += [f"{len(value)} {name}" for name, value in said.items() if isinstance(value, dict)]
        parts += [] if self.policy.mcut is None else ["MCut" if self.policy.mcut else "no MCut"]
        return ", ".join(parts) or f"{to_probability(own_threshold(self.model)):g}, the model's own"

    def as_json(self) -> dict[str, Any]:
        """For the record of an export: whose scores, which profile, and what the command line said over it."""
        return {
            "model": {
                "id": self.model.id,
                "name": self.model.name,
                "weights_sha256": self.model.weights_sha256,
                "floor": to_probability(self.model.floor),
                "threshold": to_threshold(self.model.default_threshold),
            },
            "profile": self.profile.label if self.profile else None,
            "profile_policy": self.profile.policy.as_json() if self.profile else None,
            "policy": self.policy.as_json(),
        }


def policy_of(
    *,
    threshold: float | str | None = None,
    category_threshold: Iterable[str] | None = None,
    tag_threshold: Iterable[str] | None = None,
    top: int | None = None,
    no_top: bool = False,
    mcut: bool | None = None,
) -> Policy:
    """The policy that the options of a command line make; with a profile, the change to that (`Policy.changed`).

    Raises:
        ThresholdError: one of them is no threshold, is not NAME=VALUE, or contradicts another one.
    """
    if no_top and top is not None:
        raise ThresholdError("--top and --no-top contradict each other. Give one of them.")
    return Policy(
        default=None if threshold is None else to_cut(threshold),
        categories=dict(_pair("--category-threshold", text) for text in category_threshold or ()),
        tags=dict(_pair("--tag-threshold", text) for text in tag_threshold or ()),
        top=UNSAID if no_top else top,
        mcut=mcut,
    )


def resolve_policy(
    connection: Connection, model: Model, policy: Policy | None = None, profile: str | None = None
) -> Resolved:
    """Work out for a model what the options and a profile say, as `thresholds save` would save them.

    Raises:
        ThresholdError: there is no such profile, tag or category, or a threshold is below the floor.
    """
    policy = policy or Policy()
    found = profiles.find(connection, model, profile) if profile else None
    whole = (found.policy if found else Policy()).changed(policy)
    return Resolved(resolve(model, models.tag_names(connection, model.id), whole), policy, found, model)


def _pair(option: str, text: str) -> tuple[str, int]:
    # From the right: `=_=` is a tag.
    name, equals, value = text.rpartition("=")
    if not equals or not name:
        raise ThresholdError(f"{option} is NAME=VALUE, as in cat=0.5, not {text!r}.")
    if value.strip().lower() == DEFAULT:
        return name, UNSAID
    return name, to_cut(value, what=f"The threshold of {name}")
