"""Settings: misspelt variables, the .env file, and secrets."""

import os
from collections.abc import Iterator
from difflib import get_close_matches
from urllib.parse import unquote

from dotenv.parser import parse_stream

from tagonce.doctor.finding import Finding, Status
from tagonce.settings import ENCODING, ENV_FILE, Settings, in_env_file, is_for_library

NAME = "settings"
PREFIX = "TAGONCE_"
_AWS_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_LIKENESS = 0.8
"""Similarity of an unknown name to a known one above which it counts as misspelt."""
_LIBRARIES = {
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"),
    *("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE", "HF_TOKEN", "HF_HOME"),
}
"""Common variables of boto3 and the Hugging Face hub in an .env file."""


def look() -> Iterator[Finding]:
    """Check for unknown variables, and report where the known ones come from."""
    in_file = in_env_file()
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    ours = {name for name in (*os.environ, *in_file) if name.upper().startswith(PREFIX)}
    wrong = sorted(name for name in ours if name.upper() not in known)
    for name in wrong:
        close = get_close_matches(name.upper(), known, n=1)
        yield Finding(
            NAME,
            Status.WARNING,
            f"{name} is not a setting of tagonce, and has no effect",
            f"Did you mean {close[0]}?" if close else "docs/settings.md lists all settings.",
        )
    yield from _lines_without_value()
    yield from _rest_of_file({name: value for name, value in in_file.items() if name not in ours}, known)
    place = f"and {ENV_FILE.absolute()}" if in_file else f"(no {ENV_FILE.absolute()})"
    yield Finding(NAME, Status.OK, f"{len(ours) - len(wrong)} given, by the environment {place}")


def _lines_without_value() -> Iterator[Finding]:
    """Reported by line numbers, since the text may be a secret."""
    if not ENV_FILE.is_file():
        return
    with ENV_FILE.open(encoding=ENCODING) as file:
        for binding in parse_stream(file):
            if binding.error or (binding.key and binding.value is None):
                line = binding.original.line + _blank_lines(binding.original.string)
                words = f"line {line} of {ENV_FILE} is ignored: it is not NAME=value"
                yield Finding(NAME, Status.WARNING, words, "Write NAME=value, with quotes where the value has spaces.")


def _blank_lines(text: str) -> int:
    """Number of blank lines at the beginning."""
    return text[: len(text) - len(text.lstrip())].count("\n")


def _rest_of_file(others: dict[str, str | None], known: set[str]) -> Iterator[Finding]:
    """Variables of other programs in .env: misspelt, overridden, or ignored."""
    unread = []
    for name, value in others.items():
        close = get_close_matches(name.upper(), known | _LIBRARIES, n=1, cutoff=_LIKENESS)
        if name in _LIBRARIES:
            if value and os.environ.get(name) != value:
                words = f"{name} of {ENV_FILE} is not used: the environment has another value"
                yield Finding(NAME, Status.WARNING, words, "The environment wins. Unset it there, or change the file.")
        elif close:
            words = f"nothing reads {name} of {ENV_FILE}"
            yield Finding(NAME, Status.WARNING, words, f"Did you mean {close[0]}?")
        elif not is_for_library(name):
            unread.append(name)
    if unread:
        yield Finding(NAME, Status.OK, f"ignored, for other programs: {', '.join(sorted(unread))}")


def secrets(config: Settings) -> set[str]:
    """Passwords and keys in the settings, as written and decoded."""
    found = {os.environ.get(name, "") for name in _AWS_SECRETS}
    for url in (config.database_url, config.broker_url):
        # Up to the last @: an unescaped password may contain @ or /.
        userinfo, at, _host = (url or "").partition("://")[2].rpartition("@")
        password = userinfo.partition(":")[2] if at else ""
        in_query = [part.partition("=")[2] for part in (url or "").partition("?")[2].split("&") if "password" in part]
        found |= {password, unquote(password), *in_query, *map(unquote, in_query)}
    return found
