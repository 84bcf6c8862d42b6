"""Thresholds from the files that people have.

tag,threshold                             JTP-3's calibration.csv and its like; with or without a header
category,name,threshold                   thresholds.csv of the animetimm models: `name` is the category
category,threshold                        the same by hand
tag_id,name,category,count,best_threshold selected_tags.csv of the animetimm models
.json                                     {"tag": 0.5}, or what `tagonce thresholds show --json` prints
"""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from pathlib import Path

from db.errors import ThresholdError
from db.policies import NEVER, OFF, Policy
from db.policy_json import parse_policy
from db.scores import SCALE

_TAG_COLUMNS = ("tag", "name")
_THRESHOLD_COLUMNS = ("best_threshold", "threshold")
_COUNTS = {"tp", "fp", "tn", "fn"}


@dataclass(frozen=True, slots=True)
class ThresholdTable:
    """What a file says."""

    policy: Policy
    rounded: int
    """Thresholds finer than 0.0001. They were rounded up, so that nothing is kept which the file would not keep."""


def read_thresholds(path: Path) -> ThresholdTable:
    """Read a file in one of the formats above.

    Raises:
        ThresholdError: it cannot be read, is in no such format, names something twice, or holds what is no threshold.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ThresholdError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ThresholdError(f"{path} is not UTF-8 text ({error}).") from error
    if path.suffix.lower() == ".json":
        return _from_json(path, text)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if row]
    if not rows:
        raise ThresholdError(f"{path} holds no thresholds.")
    header = [cell.strip().lower() for cell in rows[0]]
    value = next((header.index(name) for name in _THRESHOLD_COLUMNS if name in header), None)
    if value is None:
        return _without_header(path, rows)
    if header.count("tag") and set(header) >= _COUNTS:
        raise ThresholdError(
            f"{path} holds the counts of a validation, a row for each of many thresholds a tag, and not one threshold "
            "a tag. Give the calibration made from it."
        )
    return _with_header(path, header, value, rows[1:])


def _with_header(path: Path, header: Sequence[str], value: int, rows: Sequence[Sequence[str]]) -> ThresholdTable:
    # selected_tags.csv has a tag's name and its category; thresholds.csv a category's number and its name.
    by_tag = "tag" in header or "tag_id" in header or ("name" in header and "category" not in header)
    names = _TAG_COLUMNS if by_tag else ("name", "category")
    name = next((header.index(column) for column in names if column in header), None)
    if name is None:
        raise ThresholdError(f"{path} has the columns {', '.join(header)}, and none called tag, name or category.")

    pairs = []
    for line, row in enumerate(rows, start=2):
        if len(row) <= max(name, value):
            raise ThresholdError(f"{path}, line {line}: too few columns. The file is incomplete.")
        pairs.append((f"line {line}", row[name], row[value]))
    scores, rounded = _scores(path, pairs)
    return ThresholdTable(Policy(tags=scores) if by_tag else Policy(categories=scores), rounded)


def _without_header(path: Path, rows: Sequence[Sequence[str]]) -> ThresholdTable:
    first = rows[0]
    if len(first) != 2 or not _is_threshold(first[1]):  # noqa: PLR2004 - a tag and its threshold
        raise ThresholdError(
            f"{path} is in no format known here. Its first line should name the columns, for example tag,threshold or "
            "category,threshold."
        )
    if short := [line for line, row in enumerate(rows, start=1) if len(row) != len(first)]:
        raise ThresholdError(f"{path}, line {short[0]}: not a tag and a threshold.")
    scores, rounded = _scores(path, ((f"line {line}", row[0], row[1]) for line, row in enumerate(rows, start=1)))
    return ThresholdTable(Policy(tags=scores), rounded)


def _from_json(path: Path, text: str) -> ThresholdTable:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ThresholdError(f"{path} is not JSON ({error}).") from error
    if not isinstance(content, dict) or not content:
        raise ThresholdError(f"{path} should hold one JSON object, tag to threshold.")
    if not isinstance(content.get("policy"), dict):
        scores, rounded = _scores(path, ((repr(name), name, str(value)) for name, value in content.items()))
        return ThresholdTable(Policy(tags=scores), rounded)
    said = parse_policy(content["policy"], str(path))
    (default, first), (categories, second), (tags, third) = (
        _scores(path, ((repr(name), name, str(value)) for name, value in part.items()))
        for part in ({} if said.threshold is None else {"threshold": said.threshold}, said.categories, said.tags)
    )
    policy = Policy(default.get("threshold"), categories, tags, said.top, said.mcut or None)
    return ThresholdTable(policy, first + second + third)


def _scores(path: Path, pairs: Iterable[tuple[str, str, str]]) -> tuple[dict[str, int], int]:
    """Scores by name, and how many had to be rounded. `pairs` are (where in the file, name, threshold)."""
    scores: dict[str, int] = {}
    rounded = 0
    for where, name, text in pairs:
        if name in scores:
            raise ThresholdError(f"{path}, {where}: {name!r} has a threshold already.")
        if not _is_threshold(text):
            raise ThresholdError(f"{path}, {where}: {text!r} is no threshold between 0 and 1 (or {OFF}).")
        if text.strip().lower() in {OFF, "inf"}:
            scores[name] = NEVER
            continue
        exact = Decimal(text.strip()) * SCALE
        scores[name] = int(exact.to_integral_value(ROUND_CEILING))
        rounded += scores[name] != exact
    return scores, rounded


def _is_threshold(text: str) -> bool:
    text = text.strip().lower()
    if text in {OFF, "inf"}:
        return True
    try:
        number = Decimal(text)
    except InvalidOperation:
        return False
    return number.is_finite() and 0 <= number <= 1
