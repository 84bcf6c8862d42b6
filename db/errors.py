"""Every error tagonce raises on purpose, split by what has to happen next.

    TagonceError
    ├── TransientError      try again: the outside world was busy or away
    ├── ImageError          give up on this one image and record why (`reason`)
    └── StopError           stop and tell the person: nothing will get better by itself
        ├── SettingsError       a setting or an argument is wrong or missing
        ├── SourceError         there is nothing to read where we were told to read
        ├── ModelError          weights, tag list or specification do not fit together
        ├── DatabaseError       the database is away, or of another version
        ├── BrokerError         Redis is away
        └── ThresholdError      the question cannot be answered from what is stored

Foreign errors (botocore, PIL, SQLAlchemy, redis, torch) are turned into one of these once, at the edge where
they appear. A message is a sentence: what was wrong, which file or setting, what to do next.
"""

from enum import StrEnum

EXIT_FAILED = 1
"""Exit code of a process that a StopError ended."""
EXIT_USAGE = 2
"""The same for a SettingsError or a ThresholdError: what was asked for has to change."""


class Reason(StrEnum):
    """Why an image has no prediction. Kept in `failures.reason`; the list is closed on purpose."""

    MISSING = "missing"
    """No such file or object any more."""
    DENIED = "denied"
    """The file or object exists, and we may not read it."""
    CORRUPT = "corrupt"
    """The decoder knows the format and fails on the content."""
    UNSUPPORTED = "unsupported"
    """Not an image in a format Pillow opens here."""
    TOO_LARGE = "too_large"
    """More pixels or bytes than the settings allow."""
    TIMEOUT = "timeout"
    """Storage kept failing in a way that should pass, and did not."""
    CRASHED = "crashed"
    """The worker process died, or its model failed, while it had this image."""
    NAN = "nan"
    """The model gives NaN for this image, and numbers for others."""


class TagonceError(Exception):
    """Base of everything above."""


class TransientError(TagonceError):
    """Try again: nothing is wrong with the image or the settings."""


class ImageError(TagonceError):
    """Give up on this image.

    Args:
        reason: what goes into `failures.reason`.
        detail: one sentence for a person, goes into `failures.detail`.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class StopError(TagonceError):
    """Stop and say why. The command line prints the message alone and exits with 1."""


class SettingsError(StopError):
    """A setting or an argument is wrong or missing. The command line exits with 2."""


class SourceError(StopError):
    """A source of references cannot be read, or holds nothing."""


class ModelError(StopError):
    """A model's files are missing, unknown, or do not belong together."""


class DatabaseError(StopError):
    """The database cannot be reached or is not one this program can use."""


class BrokerError(StopError):
    """Redis cannot be reached or refuses us."""


class ThresholdError(StopError):
    """A threshold that what is stored cannot answer exactly."""
