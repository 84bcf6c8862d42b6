"""The values of `--gone`, apart from `db.ledger.gone`: the command line names them without importing SQLAlchemy."""

from enum import StrEnum


class Gone(StrEnum):
    """Which images a transaction reads."""

    EXCLUDE = "exclude"
    """Those that are there."""
    INCLUDE = "include"
    """All."""
    ONLY = "only"
    """Those that are gone."""
