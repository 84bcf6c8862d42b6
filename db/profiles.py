"""Profiles: policies with a name and a version, bound to a model. A version never changes once it is saved."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select
from sqlalchemy import delete as remove

from db import models
from db.errors import ThresholdError
from db.models import Model
from db.policies import Policy, resolve, unknown_name
from db.schema import models as model_table
from db.schema import profile_thresholds, profiles

LONGEST_NAME = 100
"""Characters."""


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


def save(connection: Connection, model: Model, name: str, policy: Policy, *, source: str) -> Profile:
    """Store a policy under a name, as its next version. The same policy as the latest version is not stored twice.

    Raises:
        ThresholdError: it does not fit the model, or the name cannot be one.
    """
    if not name.isprintable() or not name or "@" in name or name.strip() != name or _is_number(name):
        raise ThresholdError(f"{name!r} cannot be the name of a profile: use letters, without @, and no mere number.")
    if len(name) > LONGEST_NAME:
        raise ThresholdError(f"The name of a profile has at most {LONGEST_NAME} characters, not {len(name):,}.")
    cut = resolve(model, models.tag_names(connection, model.id), policy)
    # Whoever saves another version of the same name at the same moment waits here.
    connection.execute(select(model_table.c.id).where(model_table.c.id == model.id).with_for_update())
    rows = _rows(connection, model, name)
    if rows and rows[-1].policy == policy:
        return rows[-1]
    row = connection.execute(
        insert(profiles)
        .values(
            model_id=model.id,
            name=name,
            version=rows[-1].version + 1 if rows else 1,
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


def find(connection: Connection, model: Model, wanted: str) -> Profile:
    """A profile by `name`, which is its latest version, or by `name@version`.

    Raises:
        ThresholdError: the model has none; the message lists what there is.
    """
    name, _, version = wanted.partition("@")
    rows = _rows(connection, model, name)
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
    return [found] if "@" in wanted else list(_rows(connection, model, found.name))


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


def _rows(connection: Connection, model: Model, name: str) -> Sequence[Profile]:
    return [profile for profile in every(connection, model) if profile.name == name]


def _profile(row: Row[Any]) -> Profile:
    return Profile(row.id, row.model_id, row.name, row.version, Policy.from_json(row.policy), row.source, row.added_at)


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
