"""Check the JSON of policies: the column `profiles.policy`, and threshold files, which also hold what
`tagonce thresholds show --json` prints.
"""

import json
from collections import Counter
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from db.errors import ThresholdError
from db.scores import MAX_TAGS

MAX_TOP = 2**31 - 1
"""Larger numbers overflow in SQL and in numpy."""
_LONGEST = 60
"""Characters of a wrong value that a message repeats."""

Threshold = Annotated[float, Field(ge=0, le=1)] | Annotated[str, Field(max_length=_LONGEST)]
"""A number, also as text, or `off`. Text is checked by the reader: files are rounded, the column is not."""
Thresholds = Annotated[dict[str, Threshold], Field(max_length=MAX_TAGS)]


class PolicyJson(BaseModel):
    """A policy as JSON holds it. Descriptions say what a message expects."""

    # Strict: "false" is not a truth value, 2.5 is not a number of tags, and true is not a threshold.
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    threshold: Threshold | None = Field(None, description="a number between 0 and 1, or off")
    categories: Thresholds = Field({}, description="an object, category to threshold")
    tags: Thresholds = Field({}, description="an object, tag to threshold")
    top: int | None = Field(None, ge=1, le=MAX_TOP, description=f"a whole number from 1 to {MAX_TOP:,}")
    mcut: bool | None = Field(None, description="true or false")
    best_of: list[str] | None = Field(None, description="a list of categories")


def parse_json(text: str, where: str) -> Any:
    """Parse JSON. Large numbers are not exact: floats become infinite, integers are cut to 60 digits.

    Args:
        where: the first words of error messages.

    Raises:
        ThresholdError: the text is not JSON, or an object has a key twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        parsed = dict(pairs)
        if len(parsed) < len(pairs):
            ((key, times),) = Counter(key for key, _ in pairs).most_common(1)
            raise ThresholdError(f"{where}: an object has the key {_shown(key)} {times} times. Keep one of them.")
        return parsed

    try:
        # Python refuses to parse integers of thousands of digits. Those of more than 60 are out of range, cut or not.
        return json.loads(text, object_pairs_hook=unique, parse_int=lambda digits: int(digits[:_LONGEST]))
    except (ValueError, RecursionError) as error:
        raise ThresholdError(f"{where} is not JSON ({error}).") from error


def parse_policy(value: object, where: str) -> PolicyJson:
    """Check a policy in parsed JSON.

    Args:
        where: the first words of error messages.

    Raises:
        ThresholdError: a key is unknown, or a value has another type or is out of range.
    """
    try:
        return PolicyJson.model_validate(value)
    except ValidationError as error:
        raise ThresholdError(f"{where}: {_sentence(value, error)}") from None


def _sentence(value: object, error: ValidationError) -> str:
    """Describe the first error that pydantic found."""
    first = error.errors(include_url=False)[0]
    key, *inner = first["loc"] or ("",)
    known = PolicyJson.model_fields
    if first["type"] == "extra_forbidden":
        return f"a policy has no {_shown(key)}; it has {', '.join(known)}."
    if key not in known:
        return f"a policy is a JSON object with {', '.join(known)}, not {_shown(value)}."
    if first["type"] == "too_long":
        return f"{key} holds {len(first['input']):,} thresholds. A model has at most {MAX_TAGS:,} tags."
    # A union adds the name of the alternative that failed, after the name of the tag.
    of_tag = inner and key in ("categories", "tags")
    what, field = (f"the threshold of {_shown(inner[0])}", "threshold") if of_tag else (key, key)
    return f"{what} is {known[field].description}, not {_shown(first['input'])}."


def _shown(value: object) -> str:
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
