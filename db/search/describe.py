"""A query in words."""

from collections.abc import Iterable, Sequence

from db.ledger.models import Tag
from db.scores import NEVER, SCALE, to_probability
from db.search.tree import And, BestIn, Node, Not, Or, Reaches, Under, Within

_NAMED = 5
"""Tags of a term that are named."""


def described(node: Node, tags: Sequence[Tag]) -> str:
    """What a query asks for, for people.

    Args:
        tags: of the model, by output position.
    """
    return f"Images where {_words(node, tags)}."


def _words(node: Node, tags: Sequence[Tag], *, inner: bool = False) -> str:
    match node:
        case Reaches():
            return _reaches(node, tags)
        case BestIn():
            return f"of an exclusive group the best tag is {_names(tags[tag_id].name for tag_id in node.tag_ids)}"
        case Under() | Within():
            return _of_image(node)
        case Not():
            return f"not ({_words(node.part, tags)})"
        case And(()):
            return "a prediction is stored"
        case And() | Or():
            joined = (" and " if isinstance(node, And) else " or ").join(
                _words(part, tags, inner=True) for part in node.parts
            )
            return f"({joined})" if inner else joined


def _of_image(node: Under | Within) -> str:
    if isinstance(node, Under):
        return f"the uri begins with {node.prefix}"
    if node.exactly:
        return f"the {node.fact} is {node.low}"
    ends = [f"at least {node.low}"] if node.low is not None else []
    ends += [f"less than {node.high}"] if node.high is not None else []
    return f"the {node.fact} is {' and '.join(ends)}"


def _reaches(node: Reaches, tags: Sequence[Tag]) -> str:
    if not node.tag_ids:
        return "no tag can match"
    pairs = zip(node.tag_ids, node.lows, strict=True)
    uniform = len(set(node.lows)) == 1
    lows = {tag_id: "" if uniform else f" (from {to_probability(low):g} on)" for tag_id, low in pairs}
    who = _names(tags[tag_id].name + low for tag_id, low in lows.items())
    ends = []
    if uniform:
        ends.append(f"at least {to_probability(node.lows[0]):g}")
    if node.high < NEVER:
        ends.append(f"less than {node.high / SCALE:g}")
    said = f"has a probability of {' and '.join(ends)}" if ends else "reaches its threshold"
    return f"{who} {said}" if len(node.tag_ids) == 1 else f"one of {who} {said}"


def _names(names: Iterable[str]) -> str:
    every = list(names)
    more = len(every) - _NAMED
    return ", ".join(every[:_NAMED]) + (f" or {more:,} more" if more > 0 else "")
