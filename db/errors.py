"""All errors that tagonce raises itself, split by the action that follows.

    TagonceError
    ├── TransientError      try again: a service was busy or unreachable
    ├── ImageError          give up on this image and record why (`reason`)
    └── StopError           stop and show the message: a retry cannot help
        ├── SettingsError       a setting or an argument is wrong or missing
        ├── SourceError         a source of images cannot be read, or is empty
        ├── ModelError          weights, tag list or specification do not fit together
        ├── DatabaseError       the database is unreachable, or of another version
        ├── BrokerError         Redis is unreachable
        └── ThresholdError      the stored scores cannot answer the question

Foreign errors (botocore, PIL, SQLAlchemy, redis, torch) are converted to one of these once, in the module that calls
the library. A message is a sentence: what was wrong, which file or setting, what to do next.
"""

from enum import StrEnum

EXIT_FAILED = 1
"""Exit code of a process that a StopError ended."""
EXIT_USAGE = 2
"""The same for a SettingsError or a ThresholdError: the request has to change."""


class Reason(StrEnum):
    """Why an image has no prediction, as stored in `failures.reason`. The list is closed on purpose."""

    MISSING = "missing"
    """The file or object does not exist any more."""
    DENIED = "denied"
    """The file or object exists, and the worker may not read it."""
    CORRUPT = "corrupt"
    """The decoder knows the format and fails on the content."""
    UNSUPPORTED = "unsupported"
    """Not an image of a format that the installed Pillow opens."""
    TOO_LARGE = "too_large"
    """More pixels or bytes than the settings allow."""
    TIMEOUT = "timeout"
    """Storage kept failing with an error that is normally temporary."""
    CRASHED = "crashed"
    """The worker process died, or its model failed, while it processed this image."""
    NAN = "nan"
    """The model returns NaN for this image, and numbers for others."""


class TagonceError(Exception):
    """Base class of all errors of this module."""


class TransientError(TagonceError):
    """Try again: the image and the settings are not the cause."""


class ImageError(TagonceError):
    """Give up on this image.

    Args:
        reason: stored in `failures.reason`.
        detail: one sentence for a person, stored in `failures.detail`.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class StopError(TagonceError):
    """Stop. The command line prints the message alone and exits with 1."""


class SettingsError(StopError):
    """A setting or an argument is wrong or missing. The command line exits with 2."""


class SourceError(StopError):
    """A source of references cannot be read, or is empty."""


class ModelError(StopError):
    """A model's files are missing, unknown, or do not belong together."""


class DatabaseError(StopError):
    """The database cannot be reached, or this program cannot use it."""


class BrokerError(StopError):
    """Redis cannot be reached, or refuses the connection."""


class ThresholdError(StopError):
    """A threshold that the stored scores cannot answer exactly. The command line exits with 2."""
