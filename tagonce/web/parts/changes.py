"""What a moved slider changes in the whole collection: counted where the counts tell it, else estimated."""

from dataclasses import dataclass
from typing import Any

from db import sampling
from db.names.plural import counted
from db.policy.policies import Policy
from tagonce.web.state.site import Site
from tagonce.web.view import Thresholds, View, export_command


@dataclass(frozen=True, slots=True)
class Change:
    """From the profile to what was moved."""

    population: int
    """Images of the model, when they were counted; of those drawn at random where they were not."""
    images: int | None
    """That gain or lose a tag; None while nothing is known."""
    low: int
    high: int
    """The 95 % interval of an estimate."""
    looked_at: int
    """Images that the estimate is from."""
    gained: int
    """Tags, over all images."""
    lost: int
    exact: bool
    """Whether `images` is a count."""
    exact_tags: bool
    """Whether `gained` and `lost` are."""

    @property
    def about(self) -> str:
        """The words before the number of images."""
        return "" if self.exact else "about "

    @property
    def about_tags(self) -> str:
        return "" if self.exact_tags else "about "


NOTHING_KNOWN = Change(0, None, 0, 0, 0, 0, 0, exact=False, exact_tags=False)


def change_of(site: Site, thresholds: Thresholds) -> Change:
    """In milliseconds, whatever the size of the collection."""
    before, cut = thresholds.before, thresholds.cut
    counted, drawn = site.collection.distribution, site.collection.drawn
    told = counted is not None and counted.can_tell(before) and counted.can_tell(cut)
    images = counted.changed_images(before, cut) if counted is not None and told else None
    if counted is not None and told and images is not None:
        gained, lost = (int(part.sum()) for part in counted.gained_lost(before, cut))
        return Change(counted.images, images, images, images, counted.images, gained, lost, exact=True, exact_tags=True)
    if drawn is None:
        return NOTHING_KNOWN
    population, exact = drawn.population, drawn.is_everything
    found = sampling.estimate_change(drawn.pool, before, cut, population)
    gained, lost = found.gained, found.lost
    if counted is not None and told and counted.images == population:  # else the counts are of other images
        gained, lost = (int(part.sum()) for part in counted.gained_lost(before, cut))
        return Change(
            population, found.images, found.low, found.high, len(drawn.pool), gained, lost, exact=exact, exact_tags=True
        )
    return Change(
        population, found.images, found.low, found.high, len(drawn.pool), gained, lost, exact=exact, exact_tags=exact
    )


def assignments_of(site: Site, thresholds: Thresholds) -> int | None:
    """Tags of all images together; None where the counts do not tell it."""
    found = site.collection.distribution
    return found.assignments(thresholds.cut) if found is not None and found.can_tell(thresholds.cut) else None


def when_counted(site: Site) -> str:
    """How old the counts are, in words; nothing when they are fresh and all is well."""
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
    """What `_change.html` needs.

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
        "export": export_command(view, site.command),
    }
