"""Find the tags of a model by the spellings of captions, boorus and Hydrus."""

from collections.abc import Sequence

from db.ledger.models import Tag
from db.names.spellings import legacy
from db.names.vocabulary import Vocabulary

NAMESPACES = (
    *("artist", "character", "contributor", "copyright", "creator", "general", "invalid", "lore", "meta", "person"),
    *("rating", "series", "species", "studio"),
)
"""Namespaces of boorus and Hydrus, written before a colon. Any other word there is a part of the tag: `re:zero`."""


def unescaped(text: str) -> str:
    r"""Remove the backslashes of prompts, and repeated spaces: `saber  \(fate\)` becomes `saber (fate)`."""
    return " ".join(text.replace(r"\(", "(").replace(r"\)", ")").split())


class TagIndex:
    """The tags of a model, by name.

    A text is looked up as written, then without the escapes of prompts, then also without a namespace: one of
    `NAMESPACES` or a category of the model. Case and underscores are treated as by `Vocabulary`. Bytes that are not
    UTF-8 are tried in older encodings.

    Args:
        tags: the model's tags, by output position.
    """

    def __init__(self, tags: Sequence[Tag]) -> None:
        self._vocabulary = Vocabulary(tags)
        self._namespaces = {name.lower() for name in (*NAMESPACES, *self._vocabulary.categories)}
        # Few different texts occur millions of times.
        self._known: dict[str, tuple[int, ...]] = {}

    def find(self, text: str) -> tuple[int, ...]:
        """The ids of the tags of that name, ascending; several if the model has the name twice."""
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
