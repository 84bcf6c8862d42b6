"""The JSON of a policy: in the column `profiles.policy`, in what `tagonce thresholds show --json` prints, and in files
that are imported. One description of its form, and a sentence for what does not have it.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from db.errors import ThresholdError

_LONGEST = 60
"""Characters of a wrong value that a message repeats."""

Threshold = float | int | str
"""A number, also as text, or `off`. Which numbers is for the reader to say: files are rounded, options are not."""


class PolicyJson(BaseModel):
    """A policy as JSON has it."""

    # Strict: "false" is no truth value, 2.5 is no number of tags, and true is no threshold.
    model_config = ConfigDict(strict=True, extra="forbid")

    threshold: Threshold | None = None
    categories: dict[str, Threshold] = {}
    tags: dict[str, Threshold] = {}
    top: Annotated[int, Field(ge=1)] | None = None
    mcut: bool | None = None


_EXPECTED = {
    "threshold": "a number between 0 and 1, or off",
    "categories": "an object, category to threshold",
    "tags": "an object, tag to threshold",
    "top": "a whole number, 1 or more",
    "mcut": "true or false",
}


def parse_policy(said: object, where: str) -> PolicyJson:
    """Check the form of a policy.

    Args:
        where: the first words of the error message.

    Raises:
        ThresholdError: it has another form.
    """
    try:
        return PolicyJson.model_validate(said)
    except ValidationError as error:
        raise ThresholdError(f"{where}: {_sentence(said, error)}") from None


def _sentence(said: object, error: ValidationError) -> str:
    """For the first thing that is wrong."""
    place = error.errors()[0]["loc"]
    if not place or not isinstance(said, dict):
        return f"a policy is a JSON object with {', '.join(_EXPECTED)}, not {_shown(said)}."
    key, name = str(place[0]), place[1] if len(place) > 1 else None
    if key not in _EXPECTED:
        unknown = sorted(str(one) for one in set(said).difference(_EXPECTED))
        return f"a policy has no {', '.join(map(_shown, unknown))}; it has {', '.join(_EXPECTED)}."
    value = said[key]
    if isinstance(value, dict) and key in ("categories", "tags"):
        return f"the threshold of {_shown(name)} is {_EXPECTED['threshold']}, not {_shown(value.get(name))}."
    return f"{key} is {_EXPECTED[key]}, not {_shown(value)}."


def _shown(value: Any) -> str:
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
