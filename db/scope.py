"""Which images a query reads. Without SQLAlchemy: the command line has these values as options, and starts fast."""

from enum import StrEnum


class Gone(StrEnum):
    """Images marked as gone, in a query."""

    EXCLUDE = "exclude"
    """Only images that are not gone."""
    INCLUDE = "include"
    """All images."""
    ONLY = "only"
    """Only images that are gone."""
