"""Settings: environment variables with the prefix TAGONCE_, an .env file, and command line options.

Libraries read their own variables (boto3 `AWS_*`, the Hugging Face hub `HF_*`). `load` copies those from the .env file
into the environment of this process, and child processes inherit them.
"""

import os
from pathlib import Path
from typing import Any, Literal

from dotenv import dotenv_values
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from db.errors import SettingsError, ThresholdError
from db.scores import to_score
from workers.options import WorkerSettings

DEFAULT_DATABASE = "sqlite:///tagonce.db"
ENV_FILE = Path(".env")
"""In the current folder."""
ENCODING = "utf-8-sig"
"""Windows editors write a byte order mark."""
LIBRARY_PREFIXES = ("AWS_", "HF_", "PG")
"""Prefixes of variables that boto3, the Hugging Face hub and libpq read."""
LIBRARY_NAMES = frozenset({
    "CUDA_VISIBLE_DEVICES", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE",
    "XDG_CACHE_HOME",
})  # fmt: skip
"""Other variables of libraries. Nothing else is copied: the .env file may belong to another program."""


class Settings(WorkerSettings, BaseSettings):
    """Settings of all commands. An option on the command line wins over the environment, and that over .env."""

    model_config = SettingsConfigDict(
        env_prefix="TAGONCE_", env_file=ENV_FILE, env_file_encoding=ENCODING, enable_decoding=False, extra="ignore"
    )

    # Both may hold a password: repr=False keeps them out of whatever prints the settings.
    database_url: str = Field(DEFAULT_DATABASE, repr=False, description="PostgreSQL or SQLite")
    broker_url: str | None = Field(
        None, repr=False, description="Redis, the queue between producer and workers; `tagonce tag` starts its own"
    )
    model: str = Field("jtp-2", description="a name from `tagonce models`, `hf-hub:owner/name`, or a folder")
    floor: float = Field(0.01, description="lower probabilities are not stored; 0 stores all")
    chunk_size: int = Field(256, ge=1, le=4096, description="images in one message")
    max_queue: int = Field(20_000, ge=1, description="the producer waits while more chunks than this are queued")
    dct_scaling: bool = Field(
        False,
        description="decode large JPEGs at reduced size: faster, slightly different scores, stored as a separate model",
    )
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="port of a worker's metrics for Prometheus; with --devices, the first port"
    )
    metrics_host: str = Field("127.0.0.1", description="address to serve the metrics on; 0.0.0.0: all")
    s3_anonymous: bool = Field(
        False, description="read S3 without credentials even if there are some; without any, this is the default"
    )
    thumbnails: Path | None = Field(
        None, description="folder for the thumbnails of the review page; default: `thumbnails` in `~/.cache/tagonce`"
    )
    thumbnails_bytes: int = Field(
        1024 * 1024 * 1024, ge=1, description="total size of stored thumbnails; the least recently used are deleted"
    )
    lease_seconds: int = Field(
        120, ge=3, description="after this time, another worker takes over the chunk of a dead one"
    )
    review_token: str | None = Field(
        None,
        repr=False,
        min_length=16,
        description="access token for `tagonce review`; generated at each start if unset and needed",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="of the worker")
    log_format: Literal["text", "json"] = Field("text", description="of the worker: text or json")

    @field_validator("floor")
    @classmethod
    def _floor_is_a_score(cls, value: float) -> float:
        try:
            to_score(value, what="It")
        except ThresholdError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("roots", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if isinstance(value, str):
            roots = tuple(root for part in value.split(",") if (root := part.strip()))
            if not roots:
                raise ValueError("it is empty. To let workers read everything, unset it")
            return roots
        return value

    @property
    def floor_score(self) -> int:
        """`floor` as a score, in ten-thousandths."""
        return to_score(self.floor)

    def as_environment(self) -> dict[str, str]:
        """Environment variables that give another process the same settings."""
        values = {name: ",".join(value) if isinstance(value, tuple) else value for name, value in self}
        return {_variable(name): str(value) for name, value in values.items() if value is not None}

    def need_broker(self) -> str:
        """The broker's URL.

        Raises:
            SettingsError: it is not set.
        """
        if self.broker_url is None:
            raise SettingsError(
                "TAGONCE_BROKER_URL (or --broker) is not set: producer and workers need a Redis, for example "
                "redis://localhost:6379/0. To tag on one machine without a server, use `tagonce tag`."
            )
        return self.broker_url


def load(**overrides: Any) -> Settings:
    """Read the settings. Command line options override them; None means not given.

    Copies variables of libraries from the .env file into the environment.

    Raises:
        SettingsError: lists all invalid settings.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    _feed_libraries()
    try:
        config = Settings(**given)
    except ValidationError as error:
        lines = [
            f"  {_name(problem['loc'])}: {problem['msg'].removeprefix('Value error, ')}" for problem in error.errors()
        ]
        raise SettingsError("\n".join(["Some settings are wrong:", *lines])) from error
    if config.s3_anonymous:
        os.environ[_variable("s3_anonymous")] = "true"  # read where S3 clients are created, also in child processes
    return config


def in_env_file() -> dict[str, str | None]:
    """Names and values of the .env file of the current folder; None for a name without `=`.

    Raises:
        SettingsError: the file cannot be read, or is not UTF-8.
    """
    try:
        return dotenv_values(ENV_FILE, encoding=ENCODING) if ENV_FILE.is_file() else {}
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{ENV_FILE.absolute()} is not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8."
        ) from error
    except OSError as error:
        raise SettingsError(f"Cannot read {ENV_FILE.absolute()}: {error.strerror}.") from error


def is_for_library(name: str) -> bool:
    """Whether a variable belongs to a library."""
    return name.startswith(LIBRARY_PREFIXES) or name.upper() in LIBRARY_NAMES


def _feed_libraries() -> None:
    """The environment wins, even with an empty value. An empty value in the file means unset."""
    for name, value in in_env_file().items():
        if value and is_for_library(name):
            os.environ.setdefault(name, value)


def database_file(url: str) -> Path | None:
    """The file of an SQLite URL; None for other databases."""
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


def _name(location: tuple[int | str, ...]) -> str:
    return _variable(str(location[0])) if location else "settings"


def _variable(name: str) -> str:
    return f"TAGONCE_{name.upper()}"
