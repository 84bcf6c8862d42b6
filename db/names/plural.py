"""Numbers with their nouns, for sentences."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 tag`, `2,000 tags`.

    Args:
        plural: where it is not the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
