"""Terms on facts of files: `width:>=1024`, `format:png`, `date:2026-10..2026-11`.

    width:1024          exactly
    width:>=1024        also >, < and <=
    width:512..1024     both ends included; either may be left out

A size in bytes may end with kb, mb or gb, of 1,024 each. A date is a day, a month or a year in UTC, and stands for all
of it.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Column

from db.schema import files, images
from db.search.tree import Within

Interval = tuple[Any, Any]
"""The first value, and the first one that is no longer meant; None for no limit."""

_UNITS = {"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}
_FORMATS = {"jpg": "jpeg", "tif": "tiff", "jp2": "jpeg2000"}
"""File name extensions, and the names of their formats as Pillow has them."""
_MOST = 1 << 62


def _number(text: str) -> Interval:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError("a whole number")
    return int(text), int(text) + 1


def _size(text: str) -> Interval:
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([kmg]?b?)", text.lower())
    if not found or (unit := found[2]) not in _UNITS:
        raise ValueError("a number of bytes, as in 500kb or 2mb")
    number = min(int(float(found[1]) * _UNITS[unit]), _MOST)
    return number, number + 1


def _day(text: str) -> Interval:
    found = re.fullmatch("([0-9]{4})(?:-([0-9]{1,2}))?(?:-([0-9]{1,2}))?", text)
    year, month, day = (int(part) if part else None for part in found.groups()) if found else (None, None, None)
    try:
        start = datetime(year or 0, month or 1, day or 1, tzinfo=UTC)
        # The next day, month or year begins within so many days.
        after = start + timedelta(days=1 if day else 31 if month else 366)
    except (ValueError, OverflowError):
        raise ValueError("a date, as in 2026, 2026-11 or 2026-11-28") from None
    return start, after if day else after.replace(day=1) if month else after.replace(month=1, day=1)


class Fact(NamedTuple):
    """A property of an image that queries can ask for."""

    column: Column[Any]
    interval: Callable[[str], Interval] | None
    """The values that a text stands for; raises ValueError with what it should be. None: a name, which is compared."""


FACTS = {
    "width": Fact(files.c.width, _number),
    "height": Fact(files.c.height, _number),
    "bytes": Fact(files.c.bytes, _size),
    "format": Fact(files.c.format, None),
    "date": Fact(images.c.added_at, _day),
}
"""By the word before the colon. The date is that of registration; the others are known of files that were read."""


def parse_fact(name: str, text: str) -> Within:
    """The node of a term.

    Raises:
        ValueError: with what the text should be.
    """
    interval = FACTS[name].interval
    if interval is None:
        if not re.fullmatch("[A-Za-z0-9]{1,16}", text):
            raise ValueError("the name of a format, as in png or jpeg")
        value = text.lower()
        return Within(name, _FORMATS.get(value, value), None, exactly=True)
    if ".." in text:
        first, _dots, last = text.partition("..")
        if not first and not last:
            raise ValueError("a range with at least one end, as in 512..1024")
        return Within(name, interval(first)[0] if first else None, interval(last)[1] if last else None)
    comparison, value = text[: len(text) - len(text.lstrip("<>="))], text.lstrip("<>=")
    low, high = interval(value)
    limits = {"": (low, high), ">=": (low, None), ">": (high, None), "<": (None, low), "<=": (None, high)}
    if comparison not in limits:
        raise ValueError("one of >=, >, <= and < before a value")
    return Within(name, *limits[comparison])
