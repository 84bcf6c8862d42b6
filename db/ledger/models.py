"""Models in the database: a name, everything that makes the scores comparable, and the tag list."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select

from db.errors import ModelError
from db.schema import models, tags
from db.scores import MAX_TAGS, to_probability
from db.sql.rows.tag_rows import insert_tags
from db.sql.rows.upsert import insert_into

_ID_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Tag:
    """One output of a model."""

    name: str
    """Spelled as in the tag file. Empty if the file has an empty name, since every output has a position."""
    category: str | None = None
    """`general`, `character`, ..., or None if the file has no categories."""


@dataclass(frozen=True, slots=True)
class Model:
    """A row of `models`."""

    id: int
    name: str
    fingerprint: str
    """SHA-256 over everything that makes scores comparable, in hexadecimal."""
    weights_sha256: str
    spec: Mapping[str, Any]
    """Architecture, head and preprocessing, as described by the worker."""
    floor: int
    """Lowest score that is stored, in ten-thousandths."""
    default_threshold: int
    """The threshold if no other one is given, in ten-thousandths."""

    @property
    def label(self) -> str:
        """The name, and the values that distinguish models of the same name."""
        return f"{self.name} (id {self.id}, weights {self.weights_sha256[:8]}, floor {to_probability(self.floor):g})"


def register(
    connection: Connection,
    *,
    name: str,
    weights_sha256: str,
    spec: Mapping[str, Any],
    tag_list: Sequence[Tag],
    floor: int,
    default_threshold: int,
    made_with: Mapping[str, str] | None = None,
) -> Model:
    """Find or create the row of a model. The same name with other weights, preprocessing, tags or floor is another one.

    Args:
        spec: serialisable as JSON, without the weights and the tags.
        floor, default_threshold: ten-thousandths.
        made_with: versions of libraries by name, as of the creation of the row. They are stored in `spec`, and are not
            part of the fingerprint.

    Raises:
        ModelError: the model has more than `MAX_TAGS` tags.
    """
    if len(tag_list) > MAX_TAGS:
        raise ModelError(f"The model {name} has {len(tag_list):,} tags; tagonce supports at most {MAX_TAGS:,}.")
    fingerprint = fingerprint_of(name, weights_sha256, spec, tag_list, floor)
    if found := with_fingerprint(connection, fingerprint):
        return found
    values = {
        "name": name,
        "fingerprint": fingerprint,
        "weights_sha256": weights_sha256,
        "spec": {**spec, **({"made_with": dict(made_with)} if made_with else {})},
        "floor": floor,
        "default_threshold": default_threshold,
        "added_at": datetime.now(UTC),
    }
    row = connection.execute(_upsert(connection).values(values).returning(models)).one()
    model = _model(row)
    if not connection.scalar(select(func.count()).select_from(tags).where(tags.c.model_id == model.id)):
        insert_tags(connection, model.id, [(tag.name, tag.category) for tag in tag_list])
    return model


def with_fingerprint(connection: Connection, fingerprint: str) -> Model | None:
    """The model of a fingerprint; None if there is none."""
    row = connection.execute(select(models).where(models.c.fingerprint == fingerprint)).first()
    return None if row is None else _model(row)


def find(connection: Connection, name: str) -> Model:
    """The model of a name or an id. If several models share the name, the one registered last.

    Raises:
        ModelError: there is no such model; the message lists the names of all models.
    """
    # Ids have 64 bits: a longer number is no id, and may be a name. Bytes that are not UTF-8 match no name.
    is_id = name.isascii() and name.isdecimal() and len(name) <= _ID_DIGITS
    wanted = models.c.id == int(name) if is_id else models.c.name == name.encode(errors="replace").decode()
    row = connection.execute(select(models).where(wanted).order_by(models.c.id.desc()).limit(1)).first()
    if row is None:
        known = ", ".join(model.name for model in every(connection)) or "none yet"
        raise ModelError(
            f"The database has no model {name!r} (known: {known}). A model is registered when a worker starts with it "
            f"(`tagonce worker --model {name}`), or when images are tagged with it."
        )
    return _model(row)


def latest(connection: Connection) -> Model:
    """The default model: the one registered last.

    Raises:
        ModelError: the database has no model.
    """
    row = connection.execute(select(models).order_by(models.c.id.desc()).limit(1)).first()
    if row is None:
        raise ModelError("The database has no model yet. Tag images first: `tagonce tag FOLDER`")
    return _model(row)


def every(connection: Connection) -> list[Model]:
    """All models, in the order of registration."""
    return [_model(row) for row in connection.execute(select(models).order_by(models.c.id))]


def title(connection: Connection, model: Model) -> str:
    """The name of a model; its label if another model has the same name."""
    shared = connection.scalar(select(func.count()).select_from(models).where(models.c.name == model.name)) or 0
    return model.label if shared > 1 else model.name


def tag_names(connection: Connection, model_id: int) -> list[Tag]:
    """The model's tags, by output position."""
    rows = connection.execute(
        select(tags.c.name, tags.c.category).where(tags.c.model_id == model_id).order_by(tags.c.tag_id)
    )
    return [Tag(row.name, row.category) for row in rows]


def _model(row: Row[Any]) -> Model:
    return Model(
        id=row.id,
        name=row.name,
        fingerprint=row.fingerprint,
        weights_sha256=row.weights_sha256,
        spec=row.spec,
        floor=row.floor,
        default_threshold=row.default_threshold,
    )


def fingerprint_of(name: str, weights_sha256: str, spec: Mapping[str, Any], tag_list: Sequence[Tag], floor: int) -> str:
    """SHA-256 over everything that makes scores comparable, in hexadecimal.

    It is stored. A change to this function makes every model a new one, so that all images are tagged again. The
    worker's spec includes the categories (`tags_sha256`): a policy may have thresholds by category, and a saved profile
    was computed with the categories of its model.
    """
    whole = {
        "name": name,
        "weights": weights_sha256,
        "spec": spec,
        "tags": [tag.name for tag in tag_list],
        "floor": floor,
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _upsert(connection: Connection) -> Any:
    # Two processes may register the same model at the same moment; the second one gets the row of the first one.
    statement = insert_into(connection, models)
    return statement.on_conflict_do_update(index_elements=["fingerprint"], set_={"name": statement.excluded.name})
