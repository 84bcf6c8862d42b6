"""Read the threshold files of other programs, in any encoding and with any separator of `db.names.text_files`.

tag,threshold                             JTP-3's calibration.csv and similar tables, with or without a header
category,name,threshold                   thresholds.csv of the animetimm models: `name` is the category
category,threshold                        a table by category, made by hand
tag_id,name,category,count,best_threshold selected_tags.csv of the animetimm models; tag_id and count are optional
.json                                     {"tag": 0.5}, or the output of `tagonce thresholds show --json`
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from pathlib import Path

from db.errors import ThresholdError
from db.ledger.models import Tag
from db.names import text_files
from db.names.match_tags import TagIndex
from db.names.vocabulary import Vocabulary
from db.policy.policies import OFF, Policy
from db.policy.policy_json import parse_json, parse_policy
from db.scores import MAX_TAGS, NEVER, SCALE

_TAG_COLUMNS = ("tag", "name")
_THRESHOLD_COLUMNS = ("best_threshold", "threshold")
_COUNTS = {"tp", "fp", "tn", "fn"}
_KNOWN = {*_TAG_COLUMNS, *_THRESHOLD_COLUMNS, "category", "tag_id"}
EMPTY = {"", "nan", "null", "none", "na", "n/a"}
"""How programs write a missing threshold: pandas leaves the cell empty."""


@dataclass(frozen=True, slots=True)
class ThresholdTable:
    """The content of a threshold file."""

    policy: Policy
    rounded: int
    """Thresholds finer than 0.0001. They were rounded up, so that nothing is kept which the file would not keep."""
    without: tuple[str, ...] = ()
    """Tags or categories whose threshold is empty. They are not in the policy."""


def read_thresholds(path: Path) -> ThresholdTable:
    """Read a file in one of the formats above.

    Raises:
        ThresholdError: the file cannot be read, has another format, holds no threshold or more than MAX_TAGS, repeats
            a name, or a threshold is not a number between 0 and 1 or `off`.
    """
    if path.suffix.lower() == ".json":
        table = _from_json(path, text_files.read_text(path, ThresholdError))
    else:
        usual = "\t" if path.suffix.lower() == ".tsv" else ","
        with text_files.opened(path, ThresholdError, strict=True) as lines:
            cells = text_files.rows(lines, path, ThresholdError, known=_KNOWN, usual=usual)
            table = _from_rows(path, [(line, row) for line, row in cells if any(row)])
    if table.policy.is_empty:
        empty = f": that of {table.without[0]} is empty." if table.without else "."
        raise ThresholdError(f"{path} holds no thresholds{empty}")
    return table


def for_model(policy: Policy, tags: Sequence[Tag]) -> tuple[Policy, list[str]]:
    """Convert the names in a policy to the model's spelling (`db.names.match_tags`).

    In a file of `name,category,threshold`, `name` may be a tag or a category: if no name is a category of the model,
    names are tags.

    Args:
        tags: the model's tags, by output position.

    Returns:
        The policy without tags that the model lacks, and the names of those tags. Categories that the model lacks stay
        in the policy: `resolve` refuses them by name.

    Raises:
        ThresholdError: two names mean the same tag or category of the model.
    """
    index, vocabulary = TagIndex(tags), Vocabulary(tags)
    categories, others = _respelt(
        policy.categories, lambda name: [tags[tag_id].category for tag_id in vocabulary.in_category(name)][:1]
    )
    as_tags = {} if categories else {name: policy.categories[name] for name in others if index.find(name)}
    categories |= {name: policy.categories[name] for name in others if name not in as_tags}
    respelt, unknown = _respelt(
        {**as_tags, **policy.tags}, lambda name: [tags[tag_id].name for tag_id in index.find(name)]
    )
    return replace(policy, categories=categories, tags=respelt), unknown


def _respelt(scores: Mapping[str, int], find: Callable[[str], list[str | None]]) -> tuple[dict[str, int], list[str]]:
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
                    f"{spelling!r} has two thresholds, under {written[spelling]!r} and {name!r}. Remove one of them."
                )
            found[spelling], written[spelling] = score, name
    return found, unknown


def _from_rows(path: Path, rows: Sequence[text_files.Row]) -> ThresholdTable:
    header = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    value = next((header.index(name) for name in _THRESHOLD_COLUMNS if name in header), None)
    if value is None:
        return _without_header(path, rows)
    if header.count("tag") and set(header) >= _COUNTS:
        raise ThresholdError(
            f"{path} holds the counts of a validation: a row per tag and threshold, where one threshold per tag is "
            "expected. Give the calibration made from it."
        )
    return _with_header(path, header, value, rows[1:])


def _with_header(path: Path, header: Sequence[str], value: int, rows: Sequence[text_files.Row]) -> ThresholdTable:
    by_tag = "category" not in header
    if not by_tag:
        # selected_tags.csv has a tag's name and its category; thresholds.csv a category's number and name, once each.
        at = header.index("category")
        categories = [row[at] for _, row in rows if len(row) > at]
        is_tag_table = {"tag", "tag_id", "best_threshold"}.intersection(header)
        repeated = len(set(categories)) < len(categories)
        by_tag = bool(set(_TAG_COLUMNS).intersection(header) and (is_tag_table or repeated))
    names = _TAG_COLUMNS if by_tag else ("name", "category")
    name = next((header.index(column) for column in names if column in header), None)
    if name is None:
        raise ThresholdError(f"{path} has the columns {', '.join(header)}; none of them is tag, name or category.")

    pairs = []
    for line, row in rows:
        if len(row) <= max(name, value):
            raise ThresholdError(f"{path}, line {line}: too few columns. The file is incomplete.")
        if any(row[len(header) :]):
            raise ThresholdError(
                f"{path}, line {line}: {len(row)} columns, and the first line names {len(header)}. If numbers have a "
                "decimal comma, separate columns by ; or tabs, or put the numbers in quotes."
            )
        pairs.append((f"line {line}", row[name], row[value]))
    return _table(path, {"tags" if by_tag else "categories": pairs})


def _without_header(path: Path, rows: Sequence[text_files.Row]) -> ThresholdTable:
    if rows and (len(rows[0][1]) != 2 or exact_score(rows[0][1][1]) is None):  # noqa: PLR2004 - a tag and its threshold
        raise ThresholdError(
            f"{path} is not a known format. Its first line must name the columns, for example tag,threshold or "
            "category,threshold."
        )
    for line, row in rows:
        if len(row) != 2:  # noqa: PLR2004 - a tag and its threshold
            raise ThresholdError(f"{path}, line {line}: {len(row)} columns, where a tag and a threshold are expected.")
    return _table(path, {"tags": [(f"line {line}", *row) for line, row in rows]})


def _from_json(path: Path, text: str) -> ThresholdTable:
    content = parse_json(text, str(path))
    if not isinstance(content, dict):
        raise ThresholdError(f"{path} must hold one JSON object, tag to threshold.")
    policy = content.get("policy")
    if not isinstance(policy, dict):
        # Programs write null for a tag without a threshold.
        policy = {"tags": {name: "" if value is None else value for name, value in content.items()}}
    parsed = parse_policy(policy, str(path))
    groups = {
        "threshold": {} if parsed.threshold is None else {"threshold": parsed.threshold},
        "categories": parsed.categories,
        "tags": parsed.tags,
    }
    pairs = {key: [(repr(name), name, str(value)) for name, value in group.items()] for key, group in groups.items()}
    table = _table(path, pairs)
    rules = Policy().changed(Policy(top=parsed.top, mcut=parsed.mcut, best_of=tuple(parsed.best_of or ())))
    return replace(table, policy=table.policy.changed(rules))


def _table(path: Path, groups: Mapping[str, Iterable[Sequence[str]]]) -> ThresholdTable:
    """Convert thresholds to scores.

    Args:
        groups: (place in the file, name, threshold), under the keys of a policy in JSON.
    """
    found: dict[str, dict[str, int]] = defaultdict(dict)
    rounded = 0
    without = []
    for key, group in groups.items():
        for where, name, text in group:
            if text.strip().lower() in EMPTY:
                without.append(name)
                continue
            if name in found[key]:
                raise ThresholdError(f"{path}, {where}: {name!r} has a threshold already.")
            exact = exact_score(text)
            if exact is None:
                raise ThresholdError(
                    f"{path}, {where}: the threshold of {name!r} is a number between 0 and 1, or {OFF}, not "
                    f"{text[:40]!r}."
                )
            found[key][name] = int(exact.to_integral_value(ROUND_CEILING))
            rounded += found[key][name] != exact
        if len(found[key]) > MAX_TAGS:
            raise ThresholdError(f"{path} holds {len(found[key]):,} thresholds. A model has at most {MAX_TAGS:,} tags.")
    policy = Policy(found["threshold"].get("threshold"), found["categories"], found["tags"])
    return ThresholdTable(policy, rounded, tuple(without))


def exact_score(text: str) -> Decimal | None:
    """A threshold in ten-thousandths, before rounding; None if the text is not a threshold."""
    text = text.strip().lower().replace(",", ".")
    if text in {OFF, "inf"}:
        return Decimal(NEVER)
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number * SCALE if number.is_finite() and 0 <= number <= 1 else None
