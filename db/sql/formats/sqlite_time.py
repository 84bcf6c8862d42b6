"""Times in statements that are sent to SQLite's driver directly."""

from datetime import UTC, datetime


def sqlite_time(value: datetime) -> str:
    """The text that `db.schema.UtcDateTime` stores."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", timespec="microseconds")
