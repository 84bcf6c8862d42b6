"""Settings: misspelt variables, the .env file, and what of them is secret."""

import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import unquote

from dotenv import dotenv_values

from tagonce.doctor.finding import Finding, Status
from tagonce.settings import Settings

NAME = "settings"
PREFIX = "TAGONCE_"
_ENV_FILE = Path(".env")
_AWS_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def look() -> Iterator[Finding]:
    """Variables that mean nothing, and where the others come from."""
    in_file = dotenv_values(_ENV_FILE) if _ENV_FILE.is_file() else {}
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    ours = {name for name in (*os.environ, *in_file) if name.upper().startswith(PREFIX)}
    wrong = sorted(name for name in ours if name.upper() not in known)
    for name in wrong:
        close = get_close_matches(name.upper(), known, n=1)
        yield Finding(
            NAME,
            Status.WARNING,
            f"{name} is no setting of this program and does nothing",
            f"Did you mean {close[0]}?" if close else "The README lists all settings.",
        )
    place = f"and {_ENV_FILE.absolute()}" if in_file else f"(no {_ENV_FILE.absolute()})"
    yield Finding(NAME, Status.OK, f"{len(ours) - len(wrong)} given, by the environment {place}")


def secrets(config: Settings) -> set[str]:
    """Whatever of the settings must not be printed, as it stands there and as it is meant."""
    found = {os.environ.get(name, "") for name in _AWS_SECRETS}
    for url in (config.database_url, config.broker_url):
        # Up to the last @: a password that was not escaped may hold one, or a slash.
        userinfo, at, _host = (url or "").partition("://")[2].rpartition("@")
        password = userinfo.partition(":")[2] if at else ""
        in_query = [part.partition("=")[2] for part in (url or "").partition("?")[2].split("&") if "password" in part]
        found |= {password, unquote(password), *in_query, *map(unquote, in_query)}
    return found
