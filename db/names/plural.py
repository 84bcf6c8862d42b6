"""Numbers with nouns, for messages."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 tag`, `2,000 tags`.

    Args:
        plural: the plural of the noun; by default it ends in s.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
