"""The effect of a moved slider on the whole collection: exact where the counts suffice, else estimated."""

from dataclasses import dataclass
from typing import Any

from db import sampling
from db.names.plural import counted
from db.policy.policies import Policy
from tagonce.web.state.site import Site
from tagonce.web.view import Thresholds, View, export_command


@dataclass(frozen=True, slots=True)
class Change:
    """The change from the profile to the moved thresholds."""

    population: int
    """Images of the model when they were counted; without counts, the images drawn at random."""
    images: int | None
    """Images that gain or lose a tag; None before the first counts."""
    low: int
    high: int
    """The 95 % interval of an estimate."""
    looked_at: int
    """Number of images that the estimate is based on."""
    gained: int
    """Tags, over all images."""
    lost: int
    exact: bool
    """Whether `images` is exact."""
    exact_tags: bool
    """Whether `gained` and `lost` are exact."""

    @property
    def about(self) -> str:
        """The words before the number of images."""
        return "" if self.exact else "about "

    @property
    def about_tags(self) -> str:
        return "" if self.exact_tags else "about "


NOTHING_KNOWN = Change(0, None, 0, 0, 0, 0, 0, exact=False, exact_tags=False)


def change_of(site: Site, thresholds: Thresholds) -> Change:
    """Takes milliseconds for a collection of any size."""
    before, cut = thresholds.before, thresholds.cut
    counted, drawn = site.collection.distribution, site.collection.drawn
    told = counted is not None and counted.can_compare(before, cut)
    images = counted.changed_images(before, cut) if counted is not None and told else None
    if counted is not None and told and images is not None:
        gained, lost = (int(part.sum()) for part in counted.gained_lost(before, cut))
        return Change(counted.images, images, images, images, counted.images, gained, lost, exact=True, exact_tags=True)
    if drawn is None:
        return NOTHING_KNOWN
    population, exact = drawn.population, drawn.is_everything
    found = sampling.estimate_change(drawn.pool, before, cut, population)
    gained, lost = found.gained, found.lost
    if counted is not None and told and counted.images == population:  # otherwise the counts are of other images
        gained, lost = (int(part.sum()) for part in counted.gained_lost(before, cut))
        return Change(
            population, found.images, found.low, found.high, len(drawn.pool), gained, lost, exact=exact, exact_tags=True
        )
    return Change(
        population, found.images, found.low, found.high, len(drawn.pool), gained, lost, exact=exact, exact_tags=exact
    )


def assignments_of(site: Site, thresholds: Thresholds) -> int | None:
    """Total number of tags of all images; None if the counts do not suffice."""
    found = site.collection.distribution
    return found.assignments(thresholds.cut) if found is not None and found.can_tell(thresholds.cut) else None


def when_counted(site: Site) -> str:
    """The age of the counts, in words; empty if they are fresh."""
    collection = site.collection
    if collection.error:
        return f"The collection could not be counted: {collection.error}"
    if collection.counting:
        older = collection.distribution
        since = f", until then as of {older.counted_at:%Y-%m-%d %H:%M} UTC" if older else ""
        return f"Counting the collection: {counted(collection.counted, 'image')} so far{since}."
    if collection.distribution:
        found = collection.distribution
        return f"{counted(found.images, 'image')}, counted on {found.counted_at:%Y-%m-%d at %H:%M} UTC."
    return ""


def changes_shown(site: Site, view: View, thresholds: Thresholds, path: str) -> dict[str, Any]:
    """The variables of `_change.html`.

    Args:
        path: of the page that shows it.
    """
    return {
        "back_to_profile": view.address(path, changes=Policy()),
        "thresholds": thresholds,
        "change": change_of(site, thresholds),
        "assignments": assignments_of(site, thresholds),
        "counted": when_counted(site),
        "counting": site.collection.counting,
        "export": export_command(view, site.command, default=thresholds.profile_name),
    }
