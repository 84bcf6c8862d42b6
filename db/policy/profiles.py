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
"""Words that have, or may get, another meaning where a profile is named."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A row of `profiles`."""

    id: int
    model_id: int
    name: str
    version: int
    policy: Policy
    source: str
    """Where the policy came from, for people."""
    added_at: datetime

    @property
    def label(self) -> str:
        """`name@version`, as `find` takes it."""
        return f"{self.name}@{self.version}"


def check_name(name: str) -> None:
    """Check the name of a profile.

    Raises:
        ThresholdError: the name is empty, too long, reserved or a number, begins with `-`, or holds `@`, control
            characters or spaces at its ends.
    """
    if not name.isprintable() or not name or name[0] == "-" or "@" in name or name.strip() != name or _is_number(name):
        raise ThresholdError(
            f"{name[:LONGEST_NAME]!r} cannot be the name of a profile: it must not be empty or a number, begin with -, "
            "or hold @, control characters or spaces at its ends."
        )
    if name.lower() in RESERVED:
        raise ThresholdError(
            f"{name!r} cannot be the name of a profile: {', '.join(RESERVED)} are reserved. Choose another name."
        )
    if len(name) > LONGEST_NAME:
        raise ThresholdError(f"The name of a profile has at most {LONGEST_NAME} characters, not {len(name):,}.")


def hold(connection: Connection, model: Model) -> None:
    """Lock the profiles of a model against saving until the end of this transaction.

    Call it before reading a profile that will be changed and saved: concurrent changes then follow each other, and
    none is lost.
    """
    connection.execute(select(model_table.c.id).where(model_table.c.id == model.id).with_for_update())


def save(
    connection: Connection, model: Model, name: str, policy: Policy, *, source: str, started_from: int | None = None
) -> Profile:
    """Store a policy as the next version of a name. A policy equal to the latest version is not stored again.

    Args:
        started_from: the version of this name from which the policy was made, 0 for none. None: the policy replaces
            the latest version unconditionally.

    Raises:
        ThresholdError: the policy does not fit the model, the name is not allowed, or the latest version is another
            one than `started_from`.
    """
    check_name(name)
    policy = Policy().changed(policy)
    scores = resolve(model, models.tag_names(connection, model.id), policy).scores.tolist()
    hold(connection, model)
    rows = every(connection, model, name=name)
    if rows and rows[-1].policy == policy:
        return rows[-1]
    if started_from is not None and rows and rows[-1].version != started_from:
        raise ThresholdError(
            f"{rows[-1].label} already exists, and this would drop its thresholds. Select it as the profile and "
            "change that, or choose another name."
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
    thresholds = [{"profile_id": profile_id, "tag_id": tag_id, "score": score} for tag_id, score in enumerate(scores)]
    connection.execute(insert(profile_thresholds), thresholds)
    return Profile(profile_id, model.id, name, version, policy, source, added_at)


def lowest(connection: Connection) -> list[tuple[str, int]]:
    """`name@version` and lowest threshold (ten-thousandths) of the latest version of each profile of all models."""
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
    """Find a profile by `name` (its latest version) or by `name@version`.

    Raises:
        ThresholdError: the model has no such profile (the message lists those that it has), or its stored policy
            cannot be parsed.
    """
    name, _, version = wanted.partition("@")
    rows = every(connection, model, name=name)
    if version:
        rows = [row for row in rows if str(row.version) == version]
    if not rows:
        known = sorted({profile.label for profile in every(connection, model)})
        raise ThresholdError(
            f"{model.name}: {unknown_name(wanted, known, 'profile')} Saved are: {', '.join(known) or 'none'}."
        )
    return rows[-1]


def versions(connection: Connection, model: Model, wanted: str) -> list[Profile]:
    """The version `name@version`, or all versions of `name`, the oldest first.

    Raises:
        ThresholdError: as with `find`.
    """
    found = find(connection, model, wanted)
    return [found] if "@" in wanted else every(connection, model, name=found.name)


def delete(connection: Connection, unwanted: Sequence[Profile]) -> int:
    """Delete profiles with their thresholds; returns the number deleted. Nothing in the database refers to one."""
    # The next version is counted from the latest that remains, so a label may be used again.
    ids = [profile.id for profile in unwanted]
    return connection.execute(remove(profiles).where(profiles.c.id.in_(ids))).rowcount


def every(connection: Connection, model: Model | None = None, *, name: str | None = None) -> list[Profile]:
    """All profiles, or those of a model or of a name, by model, name and version.

    Raises:
        ThresholdError: a stored policy cannot be parsed.
    """
    # SQLAlchemy's JSON parser drops repeated keys, and its errors do not name the profile.
    columns = [cast(one, Text).label("policy") if one is profiles.c.policy else one for one in profiles.c]
    query = select(*columns).order_by(profiles.c.model_id, profiles.c.name, profiles.c.version)
    rows = connection.execute(query if model is None else query.where(profiles.c.model_id == model.id))
    # Names are compared in Python: one from the command line may hold bytes that a database refuses.
    return [_profile(row) for row in rows if name in (None, row.name)]


def _profile(row: Row[Any]) -> Profile:
    policy = Policy.from_json(row.policy, f"The profile {row.name}@{row.version}")
    return Profile(row.id, row.model_id, row.name, row.version, policy, row.source, row.added_at)


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
