"""The default policy of a model: the thresholds that come with it, and its exclusive groups, as a profile.

Every command uses the profile `model-default` where no policy is given. It is saved when the model is registered, and
again, as its next version, when other thresholds come with the model. A model without thresholds and groups has none.
"""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection

from db.ledger import models
from db.ledger.models import Model, Tag
from db.policy import profiles
from db.policy.policies import Policy
from db.policy.profiles import MODEL_DEFAULT, Profile

EXCLUSIVE = ("rating", "quality")
"""Categories of which an image has one tag."""
_SOURCE = "the files of the model"


def find(connection: Connection, model: Model) -> Profile | None:
    """The latest version of the default policy; None if the model has none."""
    return profiles.latest(connection, model, MODEL_DEFAULT)


def save(connection: Connection, model: Model, thresholds: Policy, *, is_new: bool) -> Profile | None:
    """Store the default policy of a model, unless it is that of the latest version.

    Args:
        thresholds: those that come with the model. Where they are below its floor, the floor applies.
        is_new: the model has just been registered. A model that was registered before it could have a default policy
            gets its thresholds and no exclusive groups: its scores would be shown with fewer tags than before.

    Returns:
        The latest version; None without thresholds and groups.
    """
    saved = find(connection, model)
    policy = thresholds.at_least(model.floor)
    if is_new or (saved and saved.policy.best_of):
        policy = with_groups(policy, models.tag_names(connection, model.id), model.floor)
    if policy == (saved.policy if saved else Policy()):
        return saved
    return profiles.save_default(connection, model, policy, source=_SOURCE)


def with_groups(policy: Policy, tags: Sequence[Tag], floor: int) -> Policy:
    """The policy with exclusive groups. Of a group without thresholds the best tag is kept down to the floor.

    Args:
        tags: of the model, by output position.
        floor: lowest score that is stored, in ten-thousandths.
    """
    named = {tag.category or "" for tag in tags if tag.name in policy.tags}
    groups = sorted(
        {tag.category for tag in tags if tag.category and tag.category.lower() in EXCLUSIVE},
        key=lambda category: EXCLUSIVE.index(category.lower()),
    )
    without = [category for category in groups if category not in named | set(policy.categories)]
    return replace(
        policy,
        categories={**policy.categories, **dict.fromkeys(without, floor)},
        best_of=tuple(groups) or policy.best_of,
    )
