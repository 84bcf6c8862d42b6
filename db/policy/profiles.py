"""Profiles: policies with a name and a version, bound to a model. A version never changes once it is saved."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, String, cast, func, insert, select
from sqlalchemy import delete as remove

from db.errors import ThresholdError
from db.ledger import models
from db.ledger.models import Model
from db.policy.policies import DEFAULT, OFF, Policy, resolve, unknown_name
from db.schema import models as model_table
from db.schema import profile_thresholds, profiles

LONGEST_NAME = 100
"""Characters."""
RESERVED = (DEFAULT, OFF, "latest", "none")
"""Words that mean something else where a profile may be named, or might one day."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A row of `profiles`."""

    id: int
    model_id: int
    name: str
    version: int
    policy: Policy
    source: str
    """In words: where it came from."""
    added_at: datetime

    @property
    def label(self) -> str:
        """How to write it: `name@version`."""
        return f"{self.name}@{self.version}"


def check_name(name: str) -> None:
    """Whether a profile can have a name.

    Raises:
        ThresholdError: it cannot.
    """
    if not name.isprintable() or not name or "@" in name or name.strip() != name or _is_number(name):
        raise ThresholdError(f"{name!r} cannot be the name of a profile: use letters, without @, and no mere number.")
    if name.startswith("-"):
        raise ThresholdError(f"{name!r} cannot be the name of a profile: a command would take it for an option.")
    if name.lower() in RESERVED:
        raise ThresholdError(
            f"{name!r} cannot be the name of a profile: {', '.join(RESERVED)} are reserved. Take another name."
        )
    if len(name) > LONGEST_NAME:
        raise ThresholdError(f"The name of a profile has at most {LONGEST_NAME} characters, not {len(name):,}.")


def hold(connection: Connection, model: Model) -> None:
    """Until the end of this transaction nobody else saves a profile of the model. Call it before reading a profile that
    is to be changed and saved: two changes at once follow each other then, and none is lost.
    """
    connection.execute(select(model_table.c.id).where(model_table.c.id == model.id).with_for_update())


def save(
    connection: Connection, model: Model, name: str, policy: Policy, *, source: str, started_from: int | None = None
) -> Profile:
    """Store a policy under a name, as its next version. The same policy as the latest version is not stored twice.

    Args:
        started_from: the version of this name that the policy was made from, 0 for none. None: the policy was not made
            from one, and replaces whatever the latest version says.

    Raises:
        ThresholdError: it does not fit the model, the name cannot be one, or its latest version is not the one that
            `started_from` says.
    """
    check_name(name)
    policy = Policy().changed(policy)
    cut = resolve(model, models.tag_names(connection, model.id), policy)
    hold(connection, model)
    latest = _latest(connection, model, name)
    if latest and latest.policy == policy:
        return latest
    if started_from is not None and latest and latest.version != started_from:
        raise ThresholdError(
            f"{latest.label} is there, with thresholds of its own that this would drop. Choose it as the profile "
            "first, and change that; or take another name."
        )
    row = connection.execute(
        insert(profiles)
        .values(
            model_id=model.id,
            name=name,
            version=latest.version + 1 if latest else 1,
            policy=policy.as_json(),
            source=source,
            added_at=datetime.now(UTC),
        )
        .returning(profiles)
    ).one()
    connection.execute(
        insert(profile_thresholds),
        [{"profile_id": row.id, "tag_id": tag_id, "score": score} for tag_id, score in enumerate(cut.scores.tolist())],
    )
    return _profile(row)


def lowest(connection: Connection) -> list[tuple[str, int]]:
    """The latest version of each saved profile, of any model, as `name@version`, and its lowest threshold.

    In ten-thousandths.
    """
    newest = (
        select(profiles.c.model_id, profiles.c.name, func.max(profiles.c.version).label("version"))
        .group_by(profiles.c.model_id, profiles.c.name)
        .subquery()
    )
    query = (
        select(profiles.c.name, profiles.c.version, func.min(profile_thresholds.c.score))
        .join(profile_thresholds, profile_thresholds.c.profile_id == profiles.c.id)
        .join(
            newest,
            (newest.c.model_id == profiles.c.model_id)
            & (newest.c.name == profiles.c.name)
            & (newest.c.version == profiles.c.version),
        )
        .group_by(profiles.c.id, profiles.c.name, profiles.c.version)
        .order_by(profiles.c.id)
    )
    return [(f"{name}@{version}", score) for name, version, score in connection.execute(query)]


def find(connection: Connection, model: Model, wanted: str) -> Profile:
    """A profile by `name`, which is its latest version, or by `name@version`.

    Raises:
        ThresholdError: the model has none; the message lists what there is.
    """
    found = _latest(connection, model, *wanted.split("@", 1))
    if found is None:
        known = sorted(labels(connection, model))
        raise ThresholdError(
            f"{model.name}: {unknown_name(wanted, known, 'profile')} Saved are: {', '.join(known) or 'none'}."
        )
    return found


def versions(connection: Connection, model: Model, wanted: str) -> list[Profile]:
    """One by `name@version`, or by `name` all of its versions, the oldest first.

    Raises:
        ThresholdError: the model has none; the message lists what there is.
    """
    found = find(connection, model, wanted)
    return [found] if "@" in wanted else [one for one in every(connection, model) if one.name == found.name]


def delete(connection: Connection, unwanted: Sequence[Profile]) -> int:
    """Delete profiles with their thresholds; returns how many were there. Nothing in the database depends on one."""
    # Numbers of later versions go on from the latest that is left, so that a label may come again.
    ids = [profile.id for profile in unwanted]
    return connection.execute(remove(profiles).where(profiles.c.id.in_(ids))).rowcount


def every(connection: Connection, model: Model | None = None) -> list[Profile]:
    """All of a model, or of all models, by name and version."""
    query = select(profiles).order_by(profiles.c.model_id, profiles.c.name, profiles.c.version)
    if model is not None:
        query = query.where(profiles.c.model_id == model.id)
    return [_profile(row) for row in connection.execute(query)]


def labels(connection: Connection, model: Model) -> list[str]:
    """`name@version` of all profiles of a model, by name and version. Policies, which may be long, are not read."""
    query = select(profiles.c.name, profiles.c.version).where(profiles.c.model_id == model.id)
    return [f"{name}@{version}" for name, version in connection.execute(query.order_by(*query.selected_columns))]


def _latest(connection: Connection, model: Model, name: str, version: str = "") -> Profile | None:
    """The latest version of a name, or the one that is said."""
    if not (name + version).isprintable():
        return None  # no profile has such a name, and PostgreSQL takes no NUL and no surrogates
    query = select(profiles).where(profiles.c.model_id == model.id, profiles.c.name == name)
    if version:
        query = query.where(cast(profiles.c.version, String) == version)
    row = connection.execute(query.order_by(profiles.c.version.desc()).limit(1)).first()
    return None if row is None else _profile(row)


def _profile(row: Row[Any]) -> Profile:
    return Profile(row.id, row.model_id, row.name, row.version, Policy.from_json(row.policy), row.source, row.added_at)


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
