"""The options that choose which tags to keep: `--threshold`, `--profile` and the others of a policy.

They are declared here once. A command takes all of them as one parameter:

    @takes_policy
    def command(*, policy: PolicyOptions, model: parameters.StoredModel = None) -> None:
        ...
        resolved = resolve_policy(connection, row, policy.changes, policy.profile)
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from functools import wraps
from typing import TYPE_CHECKING, Any

from db.errors import ThresholdError
from tagonce.options import parameters

if TYPE_CHECKING:  # `--help` of a command needs neither SQLAlchemy nor numpy
    from sqlalchemy import Connection

    from db.ledger.models import Model
    from db.policy.policies import Cut, Policy
    from db.policy.profiles import Profile


@dataclass
class ThresholdOptions:
    """The options of thresholds, as a command line has them.

    Raises:
        ThresholdError: one of them is not a threshold or not NAME=VALUE, or two contradict each other.
    """

    threshold: parameters.Threshold = None
    profile: parameters.ProfileName = None
    category_threshold: parameters.CategoryThresholds = None
    tag_threshold: parameters.TagThresholds = None
    best_of: parameters.BestOf = None
    no_best_of: parameters.NoBestOf = False
    changes: "Policy" = field(init=False)
    """The policy that all options but `profile` make; with a profile, the change to it (`Policy.changed`)."""

    def __post_init__(self) -> None:
        from db.policy.policies import Policy, to_cut

        if self.no_best_of and self.best_of:
            raise ThresholdError("--best-of and --no-best-of contradict each other. Give one of them.")
        best_of = () if self.no_best_of else tuple(self.best_of or ()) or None
        self.changes = Policy(
            default=None if self.threshold is None else to_cut(self.threshold),
            categories=_named("--category-threshold", self.category_threshold),
            tags=_named("--tag-threshold", self.tag_threshold),
            best_of=best_of,
        )


@dataclass
class PolicyOptions(ThresholdOptions):
    """The options of thresholds, and those that limit the tags of an image.

    Raises:
        ThresholdError: an option is wrong, or contradicts another one.
    """

    top: parameters.Top = None
    no_top: parameters.NoTop = False
    mcut: parameters.MCut = None

    def __post_init__(self) -> None:
        from db.policy.policies import UNSET

        super().__post_init__()
        if self.no_top and self.top is not None:
            raise ThresholdError("--top and --no-top contradict each other. Give one of them.")
        self.changes = replace(self.changes, top=UNSET if self.no_top else self.top, mcut=self.mcut)


def takes_policy(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the parameter `policy` of a command by the options of its class: Typer reads options from a signature."""
    signature = inspect.signature(command)
    kind = signature.parameters["policy"].annotation
    options = {
        one.name: inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=one.type)
        for one in fields(kind)
        if one.init
    }

    @wraps(command)
    def with_options(**given: Any) -> None:
        command(policy=kind(**{name: given.pop(name) for name in options}), **given)

    expanded: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        expanded += options.values() if name == "policy" else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    with_options.__signature__ = signature.replace(parameters=expanded)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in expanded}
    return with_options


@dataclass(frozen=True, slots=True)
class ResolvedPolicy:
    """The tags that a model keeps, and the policy and profile that say so."""

    cut: "Cut"
    changes: "Policy"
    """From the command line; with a profile, changes to it."""
    profile: "Profile | None"
    model: "Model"

    @property
    def label(self) -> str:
        """In words, for a summary: `0.35`, `mine@2, threshold 0.4`, `0.2, the model's own`."""
        from db.policy.policies import own_threshold
        from db.scores import to_probability

        said = self.changes.as_json()
        if set(said) == {"threshold"} and self.profile is None:
            return str(said["threshold"])
        parts = [self.profile.label] if self.profile else []
        parts += [f"{name} {value}" for name, value in said.items() if not isinstance(value, dict | list | bool)]
        parts += [f"{len(value)} {name}" for name, value in said.items() if isinstance(value, dict)]
        if self.changes.best_of is not None:
            parts += [f"best of {', '.join(self.changes.best_of)}" if self.changes.best_of else "no exclusive groups"]
        parts += [] if self.changes.mcut is None else ["MCut" if self.changes.mcut else "no MCut"]
        return ", ".join(parts) or f"{to_probability(own_threshold(self.model)):g}, the model's own"

    def as_json(self) -> dict[str, Any]:
        """For the record of an export: the model, the profile, and the changes of the command line."""
        from db.policy.policies import to_threshold
        from db.scores import to_probability

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
            "policy": self.changes.as_json(),
        }


def resolve_policy(
    connection: "Connection", model: "Model", changes: "Policy | None" = None, profile: str | None = None
) -> ResolvedPolicy:
    """The cut of a model: by a profile (`name` or `name@version`), as changed by `changes`.

    Without a profile it is that of `base_profile`.

    Raises:
        ThresholdError: there is no such profile, tag or category, or a threshold is below the floor.
    """
    from db.ledger import models
    from db.policy.policies import Policy, resolve

    changes = changes or Policy()
    found = base_profile(connection, model, changes, profile)
    policy = (found.policy if found else Policy()).changed(changes)
    return ResolvedPolicy(resolve(model, models.tag_names(connection, model.id), policy), changes, found, model)


def base_profile(connection: "Connection", model: "Model", changes: "Policy", profile: str | None) -> "Profile | None":
    """The profile that options change: the named one; else the model's default policy, if it has one.

    A threshold for all tags, without a profile, replaces the model's default policy: it applies to every tag.

    Raises:
        ThresholdError: there is no such profile.
    """
    from db.policy import model_default, profiles

    if profile:
        return profiles.find(connection, model, profile)
    return model_default.find(connection, model) if changes.default is None else None


def _named(option: str, pairs: Iterable[str] | None) -> dict[str, int]:
    """Name to score, from NAME=VALUE."""
    from db.policy.policies import DEFAULT, UNSET, to_cut

    found = {}
    for pair in pairs or ():
        # From the right: `=_=` is a tag.
        name, equals, value = pair.rpartition("=")
        if not equals or not name:
            raise ThresholdError(f"{option} is NAME=VALUE, as in cat=0.5, not {pair!r}.")
        unsaid = value.strip().lower() == DEFAULT
        found[name] = UNSET if unsaid else to_cut(value, what=f"The threshold of {name}")
    return found
