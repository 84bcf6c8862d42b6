"""What a floor costs, in words."""

from db.ledger.models import Model
from db.sampling import LARGE, RowSize
from db.scores import to_probability


def in_words(size: RowSize) -> str:
    """The mean size of the scores of an image, at each floor."""
    each = [f"{round(value):,} at {to_probability(floor):g}" for floor, value in size.at.items()]
    return f"bytes an image by floor: {', '.join(each)} ({size.images:,} drawn at random)"


def warning(model: Model, size: RowSize) -> str:
    """A sentence if the rows of a model are large; else empty."""
    (own, now), *others = size.at.items()
    if now < LARGE:
        return ""
    would = "".join(f", {value / 1_000:,.1f} GB at {to_probability(floor):g}" for floor, value in others)
    return f"A million images of {model.name} take {now / 1_000:,.1f} GB at the floor {to_probability(own):g}{would}."
