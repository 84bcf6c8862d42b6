"""Thresholds from the files that people have, in any encoding and with any separator of `db.names.text_files`.

tag,threshold                             JTP-3's calibration.csv and its like; with or without a header
category,name,threshold                   thresholds.csv of the animetimm models: `name` is the category
category,threshold                        the same by hand
tag_id,name,category,count,best_threshold selected_tags.csv of the animetimm models; tag_id and count may be absent
.json                                     {"tag": 0.5}, or what `tagonce thresholds show --json` prints
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from pathlib import Path
from typing import NamedTuple

from db.errors import ThresholdError
from db.ledger.models import Tag
from db.names import text_files
from db.names.match_tags import TagIndex
from db.names.vocabulary import Vocabulary
from db.policy.policies import OFF, Policy
from db.policy.policy_json import parse_policy
from db.scores import NEVER, SCALE

_TAG_COLUMNS = ("tag", "name")
_THRESHOLD_COLUMNS = ("best_threshold", "threshold")
_COUNTS = {"tp", "fp", "tn", "fn"}
_KNOWN = {*_TAG_COLUMNS, *_THRESHOLD_COLUMNS, "category", "tag_id"}
_NOTHING = {"", "nan", "null", "none", "na", "n/a"}
"""What programs write for a tag that has no threshold: pandas leaves the cell empty."""


@dataclass(frozen=True, slots=True)
class ThresholdTable:
    """What a file says."""

    policy: Policy
    rounded: int
    """Thresholds finer than 0.0001. They were rounded up, so that nothing is kept which the file would not keep."""
    without: tuple[str, ...] = ()
    """Tags or categories whose threshold is empty. They are not in the policy."""


def read_thresholds(path: Path) -> ThresholdTable:
    """Read a file in one of the formats above.

    Raises:
        ThresholdError: it cannot be read, is in no such format, names something twice, or holds what is no threshold.
    """
    if path.suffix.lower() == ".json":
        return _needed(path, _from_json(path, text_files.read_text(path, ThresholdError)))
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    with text_files.opened(path, ThresholdError, strict=True) as lines:
        table = text_files.rows(lines, path, ThresholdError, known=_KNOWN, usual=usual)
        rows = [(line, row) for line, row in table if any(row)]
    if not rows:
        raise ThresholdError(f"{path} holds no thresholds.")
    return _needed(path, _from_rows(path, rows))


def for_model(policy: Policy, tags: Sequence[Tag]) -> tuple[Policy, list[str]]:
    """The same in the model's spelling (`db.names.match_tags`), and the names of tags that it lacks.

    A file of `name,category,threshold` does not say whether `name` is a tag or a category: where no name is a category
    of the model, they are tags.

    Raises:
        ThresholdError: two names are one tag or category of the model.
    """
    index, vocabulary = TagIndex(tags), Vocabulary(tags)
    categories, others = _spelt(
        policy.categories, lambda name: [tags[tag_id].category for tag_id in vocabulary.in_category(name)][:1]
    )
    as_tags = {} if categories else {name: policy.categories[name] for name in others if index.find(name)}
    # What is neither stays, and is refused by name where policies are checked.
    categories |= {name: policy.categories[name] for name in others if name not in as_tags}
    spelt, unknown = _spelt({**as_tags, **policy.tags}, lambda name: [tags[tag_id].name for tag_id in index.find(name)])
    return replace(policy, categories=categories, tags=spelt), unknown


def _spelt(scores: Mapping[str, int], find: Callable[[str], list[str | None]]) -> tuple[dict[str, int], list[str]]:
    found: dict[str, int] = {}
    unknown = []
    written: dict[str, str] = {}
    for name, score in scores.items():
        spellings = {one for one in find(name) if one}
        if not spellings:
            unknown.append(name)
        for spelling in sorted(spellings):
            if spelling in found:
                raise ThresholdError(
                    f"{spelling!r} has two thresholds, under {written[spelling]!r} and {name!r}. Leave one of them out."
                )
            found[spelling], written[spelling] = score, name
    return found, unknown


def _needed(path: Path, table: ThresholdTable) -> ThresholdTable:
    if table.policy.is_empty:
        raise ThresholdError(
            f"{path} holds no thresholds" + (f": that of {table.without[0]} is empty." if table.without else ".")
        )
    return table


def _from_rows(path: Path, rows: Sequence[text_files.Row]) -> ThresholdTable:
    header = [cell.strip().lower() for cell in rows[0][1]]
    value = next((header.index(name) for name in _THRESHOLD_COLUMNS if name in header), None)
    if value is None:
        return _without_header(path, rows)
    if header.count("tag") and set(header) >= _COUNTS:
        raise ThresholdError(
            f"{path} holds the counts of a validation, a row for each of many thresholds a tag, and not one threshold "
            "a tag. Give the calibration made from it."
        )
    return _with_header(path, header, value, rows[1:])


def _with_header(path: Path, header: Sequence[str], value: int, rows: Sequence[text_files.Row]) -> ThresholdTable:
    # selected_tags.csv has a tag's name and its category; thresholds.csv a category's number and its name, once each.
    by_tag = bool({"tag", "tag_id", "best_threshold"}.intersection(header)) or "name" not in header
    if "category" in header:
        at = header.index("category")
        categories = [row[at] for _, row in rows if len(row) > at]
        by_tag = ("tag" in header or "name" in header) and (by_tag or len(set(categories)) < len(categories))
    else:
        by_tag = True
    names = _TAG_COLUMNS if by_tag else ("name", "category")
    name = next((header.index(column) for column in names if column in header), None)
    if name is None:
        raise ThresholdError(f"{path} has the columns {', '.join(header)}, and none called tag, name or category.")

    pairs = []
    for line, row in rows:
        if len(row) <= max(name, value):
            raise ThresholdError(f"{path}, line {line}: too few columns. The file is incomplete.")
        if any(row[len(header) :]):
            raise ThresholdError(
                f"{path}, line {line}: {len(row)} columns, and the first line names {len(header)}. Where numbers have "
                "a decimal comma, separate columns by ; or tabs, or put the numbers in quotes."
            )
        pairs.append((f"line {line}", row[name], row[value]))
    scores, rounded, without = _scores(path, pairs)
    return ThresholdTable(Policy(tags=scores) if by_tag else Policy(categories=scores), rounded, without)


def _without_header(path: Path, rows: Sequence[text_files.Row]) -> ThresholdTable:
    _, first = rows[0]
    if len(first) != 2 or not _is_threshold(first[1]):  # noqa: PLR2004 - a tag and its threshold
        raise ThresholdError(
            f"{path} is in no format known here. Its first line should name the columns, for example tag,threshold or "
            "category,threshold."
        )
    if short := [line for line, row in rows if len(row) != len(first)]:
        raise ThresholdError(f"{path}, line {short[0]}: not a tag and a threshold.")
    scores, rounded, without = _scores(path, ((f"line {line}", row[0], row[1]) for line, row in rows))
    return ThresholdTable(Policy(tags=scores), rounded, without)


def _from_json(path: Path, text: str) -> ThresholdTable:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ThresholdError(f"{path} is not JSON ({error}).") from error
    if not isinstance(content, dict) or not content:
        raise ThresholdError(f"{path} should hold one JSON object, tag to threshold.")
    if not isinstance(content.get("policy"), dict):
        scores, rounded, without = _scores(path, ((repr(name), name, str(value)) for name, value in content.items()))
        return ThresholdTable(Policy(tags=scores), rounded, without)
    said = parse_policy(content["policy"], str(path))
    default, categories, tags = parts = [
        _scores(path, ((repr(name), name, str(value)) for name, value in part.items()))
        for part in ({} if said.threshold is None else {"threshold": said.threshold}, said.categories, said.tags)
    ]
    policy = Policy(default.of.get("threshold"), categories.of, tags.of, said.top, said.mcut or None)
    return ThresholdTable(policy, sum(part.rounded for part in parts), sum((part.without for part in parts), ()))


class _Scores(NamedTuple):
    of: dict[str, int]
    """By name."""
    rounded: int
    without: tuple[str, ...]
    """Names whose threshold is empty."""


def _scores(path: Path, pairs: Iterable[tuple[str, str, str]]) -> _Scores:
    """The thresholds of a file. `pairs` are (where in the file, name, threshold)."""
    scores: dict[str, int] = {}
    rounded = 0
    without = []
    for where, name, written in pairs:
        text = written.strip().replace(",", ".")
        if text.lower() in _NOTHING:
            without.append(name)
            continue
        if name in scores:
            raise ThresholdError(f"{path}, {where}: {name!r} has a threshold already.")
        if not _is_threshold(text):
            raise ThresholdError(f"{path}, {where}: {written!r} is no threshold between 0 and 1 (or {OFF}).")
        if text.lower() in {OFF, "inf"}:
            scores[name] = NEVER
            continue
        exact = Decimal(text) * SCALE
        scores[name] = int(exact.to_integral_value(ROUND_CEILING))
        rounded += scores[name] != exact
    return _Scores(scores, rounded, tuple(without))


def _is_threshold(text: str) -> bool:
    text = text.strip().lower().replace(",", ".")
    if text in {OFF, "inf"}:
        return True
    try:
        number = Decimal(text)
    except InvalidOperation:
        return False
    return number.is_finite() and 0 <= number <= 1
