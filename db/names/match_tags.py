"""Tags as captions, boorus and Hydrus write them, found among those of a model."""

from collections.abc import Sequence

from db.ledger.models import Tag
from db.names.spellings import legacy
from db.names.vocabulary import Vocabulary

NAMESPACES = (
    *("artist", "character", "contributor", "copyright", "creator", "general", "invalid", "lore", "meta", "person"),
    *("rating", "series", "species", "studio"),
)
"""What boorus and Hydrus write before a colon. Any other word before a colon belongs to the tag, as in `re:zero`."""


def unescaped(text: str) -> str:
    r"""Without the backslashes of prompts and with single spaces: `saber  \(fate\)` is `saber (fate)`."""
    return " ".join(text.replace(r"\(", "(").replace(r"\)", ")").split())


class TagIndex:
    """The tags of a model by name.

    A text is looked up as it stands, then without what prompts escape, then also without a namespace, which is one of
    `NAMESPACES` or a category of the model. Case, and spaces for underscores, are as in `Vocabulary`. Bytes that are
    not UTF-8 are tried in older encodings.
    """

    def __init__(self, tags: Sequence[Tag]) -> None:
        self._vocabulary = Vocabulary(tags)
        self._namespaces = {name.lower() for name in (*NAMESPACES, *self._vocabulary.categories)}
        # Few texts are written millions of times.
        self._known: dict[str, tuple[int, ...]] = {}

    def find(self, text: str) -> tuple[int, ...]:
        """The tag ids: none when the model has no such tag, several when it has the name twice."""
        try:
            return self._known[text]
        except KeyError:
            found = self._known[text] = self._find(text)
            return found

    def _find(self, text: str) -> tuple[int, ...]:
        find = self._vocabulary.find
        for spelling in (text, *legacy(text)):
            plain = unescaped(spelling)
            if found := find(spelling.strip()) or find(plain):
                return found
            namespace, _, rest = plain.partition(":")
            if namespace.lower() in self._namespaces and (found := find(rest.strip())):
                return found
        return ()
