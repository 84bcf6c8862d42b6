"""Profiles: policies with a name and a version, bound to a model. A version never changes once it is saved."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Text, cast, func, insert, select
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
    rows = _versions(connection, model, name)
    if rows and rows[-1].policy == policy:
        return rows[-1]
    if started_from is not None and rows and rows[-1].version != started_from:
        raise ThresholdError(
            f"{rows[-1].label} is there, with thresholds of its own that this would drop. Choose it as the profile "
            "first, and change that; or take another name."
        )
    version = rows[-1].version + 1 if rows else 1
    added_at = datetime.now(UTC)
    profile_id = connection.execute(
        insert(profiles)
        .values(
            model_id=model.id, name=name, version=version, policy=policy.as_json(), source=source, added_at=added_at
        )
        .returning(profiles.c.id)
    ).scalar_one()
    connection.execute(
        insert(profile_thresholds),
        [
            {"profile_id": profile_id, "tag_id": tag_id, "score": score}
            for tag_id, score in enumerate(cut.scores.tolist())
        ],
    )
    return Profile(profile_id, model.id, name, version, policy, source, added_at)


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
    name, _, version = wanted.partition("@")
    rows = _versions(connection, model, name)
    if version:
        rows = [row for row in rows if str(row.version) == version]
    if not rows:
        known = sorted({profile.label for profile in every(connection, model)})
        raise ThresholdError(
            f"{model.name}: {unknown_name(wanted, known, 'profile')} Saved are: {', '.join(known) or 'none'}."
        )
    return rows[-1]


def versions(connection: Connection, model: Model, wanted: str) -> list[Profile]:
    """One by `name@version`, or by `name` all of its versions, the oldest first.

    Raises:
        ThresholdError: the model has none; the message lists what there is.
    """
    found = find(connection, model, wanted)
    return [found] if "@" in wanted else _versions(connection, model, found.name)


def delete(connection: Connection, unwanted: Sequence[Profile]) -> int:
    """Delete profiles with their thresholds; returns how many were there. Nothing in the database depends on one."""
    # Numbers of later versions go on from the latest that is left, so that a label may come again.
    ids = [profile.id for profile in unwanted]
    return connection.execute(remove(profiles).where(profiles.c.id.in_(ids))).rowcount


def every(connection: Connection, model: Model | None = None) -> list[Profile]:
    """All of a model, or of all models, by name and version."""
    return list(map(_profile, _rows(connection, model)))


def _versions(connection: Connection, model: Model, name: str) -> list[Profile]:
    """All versions of a name, the oldest first."""
    # Compared here: a name from the command line may hold bytes that a database refuses.
    return [_profile(row) for row in _rows(connection, model) if row.name == name]


def _rows(connection: Connection, model: Model | None) -> Sequence[Row[Any]]:
    # As text: SQLAlchemy's own parser drops repeated keys, and raises what is no sentence.
    columns = [cast(one, Text).label("policy") if one is profiles.c.policy else one for one in profiles.c]
    query = select(*columns).order_by(profiles.c.model_id, profiles.c.name, profiles.c.version)
    return connection.execute(query if model is None else query.where(profiles.c.model_id == model.id)).all()


def _profile(row: Row[Any]) -> Profile:
    policy = Policy.from_json(row.policy, f"The profile {row.name}@{row.version}")
    return Profile(row.id, row.model_id, row.name, row.version, policy, row.source, row.added_at)


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
