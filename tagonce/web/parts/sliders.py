"""Sliders: the thresholds that can be moved, as the pages show them."""

from dataclasses import dataclass

from db.policy.policies import OFF, Policy, own_threshold, to_threshold
from db.scores import NEVER, SCALE, to_probability
from tagonce.web.state.site import Site
from tagonce.web.view import CATEGORY, TAG, THRESHOLD, Thresholds, View

_MOST_OF_PROFILE = 12
_NUMBER = r"0|1|1\.0{1,4}|0?\.[0-9]{1,4}"


@dataclass(frozen=True, slots=True)
class Slider:
    """A threshold to move. Its texts are in the syntax of the command line."""

    field: str
    """Its name in the address."""
    label: str
    moved: int | None
    """The score at which it was."""
    otherwise: int
    """The threshold that applies if it was not moved."""
    follows: bool = False
    """It follows the threshold for all tags."""

    @property
    def value(self) -> str:
        """Empty if it was not moved."""
        return "" if self.moved is None else str(to_threshold(self.moved))

    @property
    def placeholder(self) -> str:
        return str(to_threshold(self.otherwise))

    @property
    def at(self) -> float:
        """Its position, 0 to 1; 1 when it is off."""
        return to_probability(min(self.otherwise if self.moved is None else self.moved, SCALE))

    @property
    def can_be_off(self) -> bool:
        return self.field != THRESHOLD

    @property
    def pattern(self) -> str:
        """The values that its field accepts."""
        return f"{OFF}|{_NUMBER}" if self.can_be_off else _NUMBER


def default_slider(site: Site, view: View, thresholds: Thresholds) -> Slider:
    """The slider of all tags without a threshold of their own."""
    return Slider(THRESHOLD, "all tags", view.changes.default, _default(site, thresholds.base))


def category_sliders(site: Site, view: View, thresholds: Thresholds) -> list[Slider]:
    """A slider for each category of the model."""
    default = _default(site, thresholds.policy)
    of_profile, moved = thresholds.base.categories, view.changes.categories
    return [
        Slider(CATEGORY + name, name, moved.get(name), of_profile.get(name, default), follows=name not in of_profile)
        for name in site.categories
    ]


def all_sliders(site: Site, view: View, thresholds: Thresholds) -> list[Slider]:
    """The sliders of all tags, of categories and of single tags."""
    sliders = [default_slider(site, view, thresholds), *category_sliders(site, view, thresholds)]
    return [*sliders, *tag_sliders(site, view, thresholds)]


def tag_sliders(site: Site, view: View, thresholds: Thresholds) -> list[Slider]:
    """A slider for each tag with its own threshold: all moved ones, and the profile's if they are few."""
    of_profile = thresholds.base.tags if len(thresholds.base.tags) <= _MOST_OF_PROFILE else {}
    names = dict.fromkeys([*view.changes.tags, *of_profile])
    ids = {tag.name: tag_id for tag_id, tag in enumerate(site.tags) if tag.name in names}
    return [tag_slider(site, view, thresholds, ids[name], label=name) for name in names]


def tag_slider(site: Site, view: View, thresholds: Thresholds, tag_id: int, *, label: str = "threshold") -> Slider:
    """The slider of a tag."""
    name = site.tags[tag_id].name
    without = int(thresholds.before.scores[tag_id])
    return Slider(TAG + name, label, view.changes.tags.get(name), min(without, NEVER))


def _default(site: Site, policy: Policy) -> int:
    return own_threshold(site.model, mcut=bool(policy.mcut)) if policy.default is None else policy.default
