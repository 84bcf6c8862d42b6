"""Thresholds that come with a model: in its tag list, beside it, in its configuration or in its weights.

    *calibration.csv              tag,threshold                   by tag: JTP-3 Hydra
    selected_tags.csv             best_threshold, or threshold    by tag: animetimm
    ram_tag_list_threshold.txt    a line for each tag             by tag: RAM++, where 1 means never
    tensor `validation`           (tags, 99, 4)                   by tag: Hydra 3.5, see `best_f1`
    thresholds.csv                category,name,...,threshold     by category: animetimm
    config.json                   category_best_threshold         by category: PixAI v1.0; `best_threshold` for the rest
    tags_v0.9_13k.json, tag_mapping.json                          PUBLISHED, by category

A tag takes its threshold from the first place that names it. A blank or null threshold of a tag means never. Thresholds
finer than 0.0001 are rounded up, so that nothing is kept which the model's own program would not keep.
"""

from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from db.arrays.types import Int16Array, Int64Array
from db.errors import ModelError, ThresholdError
from db.ledger.models import Tag
from db.names import text_files
from db.policy.policies import Policy
from db.policy.threshold_files import EMPTY, exact_score, for_model, read_thresholds
from db.scores import NEVER, SCALE, to_score
from workers.models.safetensors_header import read_header, read_integers
from workers.models.tag_files import read_json

THRESHOLD_FILES = ("calibration.csv", "thresholds.csv", "ram_tag_list_threshold.txt")
"""Files of a repository that only hold thresholds."""

PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "tags_v0.9_13k.json": {"general": 0.30, "character": 0.85},
    "tag_mapping.json": {"general": 0.55, "character": 0.60},
}
"""By tag list: thresholds that only the program of its authors states, PixAI's handler and cl_tagger's space."""

_VALIDATION = "validation"
_STEPS = 99
"""Thresholds of `validation`: 0.01, 0.02, ..., 0.99."""
_LEAST_PRECISION = 0.1
_ALSO_CALLED = {"style": "artist"}
"""Categories of PixAI v1.0 under their other name."""
_COLUMNS = {"tag_id", "name", "category", "count", "threshold", "best_threshold"}


def read_policy(folder: Path, weights: Path, tags: Sequence[Tag]) -> Policy:
    """The thresholds in a model's folder; an empty policy without any.

    Args:
        weights: weight file; only of safetensors the tensors are looked at.
        tags: of the model, by output position.

    Raises:
        ModelError: a file of thresholds cannot be read, or is of another model.
    """
    by_tag = {
        **_in_weights(weights, tags),
        **_by_line(folder / "ram_tag_list_threshold.txt", tags),
        **_by_row(folder / "selected_tags.csv", tags),
        **_calibrated(folder, tags),
    }
    by_category: dict[str, int] = {}
    for file, stated in PUBLISHED.items():
        if (folder / file).is_file():
            by_category |= _of_categories({name: to_score(value) for name, value in stated.items()}, tags)
    in_config, default = _in_config(folder / "config.json", tags)
    return Policy(default, by_category | in_config | _in_category_file(folder, tags), by_tag)


def best_f1(counts: Int64Array) -> Int16Array:
    """(tags,) for each tag the threshold with the best F1 among those with a precision of 0.1 or more; else NEVER.

    F1 = 2 tp / (2 tp + fp + fn). It is the default calibration of Hydra 3.5, `f1.0@0.1`. Of equally good thresholds the
    lowest is taken.

    Args:
        counts: (tags, 99, 4) tp, fp, tn, fn at 0.01, 0.02, ..., 0.99.
    """
    tp, fp, _tn, fn = np.moveaxis(counts.astype(np.float64), 2, 0)
    f1 = 2 * tp / np.maximum(2 * tp + fp + fn, 1)
    f1[tp < _LEAST_PRECISION * np.maximum(tp + fp, 1)] = -1
    best = f1.argmax(axis=1)
    found = f1[np.arange(best.size), best] >= 0
    return np.where(found, (best + 1) * (SCALE // (_STEPS + 1)), NEVER).astype(np.int16)


def _in_weights(weights: Path, tags: Sequence[Tag]) -> dict[str, int]:
    if weights.suffix != ".safetensors":
        return {}
    shape = read_header(weights).shapes.get(_VALIDATION)
    if shape is None:
        return {}
    if shape != (len(tags), _STEPS, 4):
        raise ModelError(
            f"{weights}: the tensor `validation` is {list(shape)}, where [{len(tags)}, {_STEPS}, 4] was expected: "
            "tags, thresholds, and tp, fp, tn, fn. The weights and the tag list belong to different models."
        )
    return _named(best_f1(read_integers(weights, _VALIDATION)).tolist(), tags)


def _by_line(path: Path, tags: Sequence[Tag]) -> dict[str, int]:
    if not path.is_file():
        return {}
    lines = text_files.read_text(path, ModelError).split()
    if len(lines) != len(tags):
        raise ModelError(f"{path} has {len(lines)} thresholds, and the tag list {len(tags)} tags. Download both again.")
    scores = [_score(path, number, text) for number, text in enumerate(lines, start=1)]
    return _named([NEVER if score == SCALE else score for score in scores], tags)


def _by_row(path: Path, tags: Sequence[Tag]) -> dict[str, int]:
    rows = _rows(path)
    column = next((name for name in ("best_threshold", "threshold") if rows and name in rows[0]), None)
    if column is None or not any(row[column] for row in rows):
        return {}
    if len(rows) != len(tags):  # then another file is the tag list
        return {}
    return _named([_score(path, number, row[column] or "") for number, row in enumerate(rows, start=2)], tags)


def _calibrated(folder: Path, tags: Sequence[Tag]) -> Mapping[str, int]:
    found = sorted(folder.glob("*calibration.csv"))
    if not found:
        return {}
    if len(found) > 1:
        raise ModelError(f"{folder} has several calibrations: {', '.join(path.name for path in found)}. Keep one.")
    try:
        table = read_thresholds(found[0])
        stated = {**table.policy.tags, **dict.fromkeys(table.without, NEVER)}
        known, unknown = for_model(Policy(tags=stated), tags)
    except ThresholdError as error:
        raise ModelError(str(error)) from error
    if unknown and not known.tags:
        raise ModelError(f"{found[0]} has no threshold of a tag of this model. Remove it, or give that of this model.")
    return known.tags


def _in_category_file(folder: Path, tags: Sequence[Tag]) -> dict[str, int]:
    """The thresholds of thresholds.csv. Its numbers are those of the tag list, where each may have any name."""
    path = folder / "thresholds.csv"
    rows, listed = _rows(path), _rows(folder / "selected_tags.csv")
    numbers = {row["category"]: tag.category for row, tag in zip(listed, tags, strict=False) if row.get("category")}
    stated = {
        numbers.get(row.get("category")) or row.get("name") or row.get("category") or "": _score(path, number, text)
        for number, row in enumerate(rows, start=2)
        if (text := row.get("threshold"))
    }
    return _of_categories(stated, tags)


def _in_config(path: Path, tags: Sequence[Tag]) -> tuple[dict[str, int], int | None]:
    config: Any = read_json(path) if path.is_file() else {}
    if not isinstance(config, dict):
        return {}, None
    stated = config.get("category_best_threshold") or {}
    if not isinstance(stated, dict):
        raise ModelError(f"{path}: category_best_threshold should be an object, category to threshold.")
    default = config.get("best_threshold")
    by_category = {str(name): _score(path, str(name), str(value)) for name, value in stated.items()}
    return _of_categories(by_category, tags), None if default is None else _score(path, "all tags", str(default))


def _of_categories(stated: Mapping[str, int], tags: Sequence[Tag]) -> dict[str, int]:
    """Those that the model has, in its spelling."""
    known = {tag.category.lower(): tag.category for tag in tags if tag.category}
    names = {name: known.get(name.lower()) or known.get(_ALSO_CALLED.get(name.lower(), "")) for name in stated}
    return {spelt: stated[name] for name, spelt in names.items() if spelt}


def _named(scores: Sequence[int], tags: Sequence[Tag]) -> dict[str, int]:
    """By name. An output without a name is no tag."""
    return {tag.name: score for tag, score in zip(tags, scores, strict=True) if tag.name}


def _score(path: Path, where: int | str, text: str) -> int:
    """A threshold in ten-thousandths; NEVER for a blank one."""
    if text.strip().lower() in EMPTY:
        return NEVER
    exact = exact_score(text)
    if exact is None:
        place = f"line {where}" if isinstance(where, int) else where
        raise ModelError(f"{path}, {place}: a threshold is a number between 0 and 1, not {text[:40]!r}.")
    return int(exact.to_integral_value(ROUND_CEILING))


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table by column; none without the file or without a known column."""
    if not path.is_file():
        return []
    with text_files.opened(path, ModelError, strict=True) as file:
        table = text_files.rows(file, path, ModelError, known=_COLUMNS)
        _, header = next(table, (0, []))
        return [dict(zip_longest(header, row[: len(header)])) for _, row in table]
