"""Profiles: policies with a name and a version, bound to a model. A version never changes once it is saved."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, Select, String, Text, cast, func, insert, select
from sqlalchemy import delete as remove

from db.errors import ThresholdError
from db.ledger import models
from db.ledger.models import Model
from db.policy.policies import DEFAULT, OFF, Policy, resolve, unknown_name
from db.schema import models as model_table
from db.schema import profile_thresholds, profiles

LONGEST_NAME = 100
"""Characters."""
MODEL_DEFAULT = "model-default"
"""The profile of `db.policy.model_default`."""
RESERVED = (MODEL_DEFAULT, DEFAULT, OFF, "latest", "none")
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
    return _save(connection, model, name, policy, source=source, started_from=started_from)


def save_default(connection: Connection, model: Model, policy: Policy, *, source: str) -> Profile:
    """Store the default policy of a model as `save` does. People cannot save under its name.

    Raises:
        ThresholdError: the policy does not fit the model.
    """
    return _save(connection, model, MODEL_DEFAULT, policy, source=source)


def _save(
    connection: Connection, model: Model, name: str, policy: Policy, *, source: str, started_from: int | None = None
) -> Profile:
    policy = Policy().changed(policy)
    scores = resolve(model, models.tag_names(connection, model.id), policy).scores.tolist()
    hold(connection, model)
    before = latest(connection, model, name)
    if before and before.policy == policy:
        return before
    if started_from is not None and before and before.version != started_from:
        raise ThresholdError(
            f"{before.label} already exists, and this would drop its thresholds. Select it as the profile and change "
            "that, or choose another name."
        )
    version = before.version + 1 if before else 1
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
    """`name@version` and lowest threshold (ten-thousandths) of the latest version of each profile of all models.

    Default policies of models are not among them: their thresholds follow the floor.
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
        .where(profiles.c.name != MODEL_DEFAULT)
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
    found = latest(connection, model, *wanted.split("@", 1))
    if found is None:
        known = sorted(labels(connection, model))
        raise ThresholdError(
            f"{model.name}: {unknown_name(wanted, known, 'profile')} Saved are: {', '.join(known) or 'none'}."
        )
    return found


def versions(connection: Connection, model: Model, wanted: str) -> list[Profile]:
    """The version `name@version`, or all versions of `name`, the oldest first.

    Raises:
        ThresholdError: as with `find`.
    """
    found = find(connection, model, wanted)
    return [found] if "@" in wanted else [one for one in every(connection, model) if one.name == found.name]


def delete(connection: Connection, unwanted: Sequence[Profile]) -> int:
    """Delete profiles with their thresholds; returns the number deleted. Nothing in the database refers to one."""
    # The next version is counted from the latest that remains, so a label may be used again.
    ids = [profile.id for profile in unwanted]
    return connection.execute(remove(profiles).where(profiles.c.id.in_(ids))).rowcount


def every(connection: Connection, model: Model | None = None) -> list[Profile]:
    """All profiles, or those of a model, by model, name and version.

    Raises:
        ThresholdError: a stored policy cannot be parsed.
    """
    query = _stored().order_by(profiles.c.model_id, profiles.c.name, profiles.c.version)
    rows = connection.execute(query if model is None else query.where(profiles.c.model_id == model.id))
    return [_profile(row) for row in rows]


def labels(connection: Connection, model: Model) -> list[str]:
    """`name@version` of all profiles of a model, by name and version. Does not read the policies, which may be long."""
    query = select(profiles.c.name, profiles.c.version).where(profiles.c.model_id == model.id)
    return [f"{name}@{version}" for name, version in connection.execute(query.order_by(*query.selected_columns))]


def latest(connection: Connection, model: Model, name: str, version: str = "") -> Profile | None:
    """The latest version of a name, or the given version; None if there is none."""
    if not (name + version).isprintable():
        return None  # no profile has such a name, and PostgreSQL refuses NUL and surrogates
    query = _stored().where(profiles.c.model_id == model.id, profiles.c.name == name)
    if version:
        query = query.where(cast(profiles.c.version, String) == version)
    row = connection.execute(query.order_by(profiles.c.version.desc()).limit(1)).first()
    return None if row is None else _profile(row)


def _stored() -> Select[Any]:
    """All columns; the policy as text. SQLAlchemy's JSON parser drops repeated keys, and its errors name no profile."""
    return select(*(cast(one, Text).label("policy") if one is profiles.c.policy else one for one in profiles.c))


def _profile(row: Row[Any]) -> Profile:
    policy = _parsed(row.policy, f"The profile {row.name}@{row.version}")
    return Profile(row.id, row.model_id, row.name, row.version, policy, row.source, row.added_at)


@lru_cache(maxsize=4)
def _parsed(text: str, where: str) -> Policy:
    """Thresholds of ten thousand tags take some hundredths of a second, and the review page needs them each time."""
    return Policy.from_json(text, where)


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
