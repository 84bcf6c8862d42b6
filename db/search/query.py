r"""The query language: booru syntax over stored probabilities, read into a tree of plain data (`db.search.tree`).

    cat -dog                both: cat, and not dog
    cat ~ dog bird          cat or dog, and bird: `~` binds closer than the space does
    ~cat ~dog bird          the same: the terms of a group that have `~` before them
    ( cat bird ) ~ -( dog ) groups; brackets, and `~` between terms, are words with white space around them
    cat                     the threshold in force for that very tag: a profile's, --threshold, the model's own
    cat:0.5                 p >= 0.5, as cat:0.5.. and cat:>=0.5
    cat:0.2..0.4            0.2 <= p < 0.4, where an upper end of 1 holds 1
    cat:..0.4               p < 0.4, also where it is not stored; as cat:<0.4
    *_hair:0.5              any tag that fits
    category:character:0.8  any tag of the category
    under:PATH              images in a folder or under an s3:// prefix
    model:NAME              whose scores are asked; once, outside of groups
    "re:zero":0.5           quoted, a name is a name and no more; \" and \\ inside

A word that is a tag as it stands is that tag (`-_-`, `re:zero`, `~_~`, `*_*`, `saber_(fate)`); a word that begins with
a known tag and a colon is the tag and a threshold. Only then do `-`, `~` and `*` mean something. The words `(`, `)`,
`-(` and `~` are never tags; quotes make them some.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from db.ledger.models import Model, Tag
from db.names.vocabulary import Vocabulary
from db.policy.policies import Cut
from db.search.terms import Leaves, QueryError, Word, keyed, sign_of, words
from db.search.tree import And, Node, Not, Or, Reaches, Under

__all__ = ["And", "Node", "Not", "Or", "QueryError", "Reaches", "Under", "named_model", "parse", "quoted"]

MAX_TERMS = 100
MAX_DEPTH = 20
"""Groups in groups."""

_OPENING = ("(", "-(", "~(", "~-(")
_CLOSING = ")"
_OR = "~"
_BETWEEN = "~ as a word of its own stands between two terms: a ~ b"
_MIXED = "In one group ~ stands either before terms (~a ~b) or between them (a ~ b)."


def named_model(query: str) -> str | None:
    """What stands behind `model:`. `parse` needs the tags of that model."""
    for word in words(query):
        term = keyed(word, sign_of(word))
        if term and term.key == "model":
            return term.name or None
    return None


def parse(
    query: str,
    model: Model,
    tags: Sequence[Tag],
    cut: Cut,
    *,
    prefix_of: Callable[[str], str] = str,
) -> Node:
    """Read a query.

    Args:
        tags: of the model, by output position.
        cut: thresholds of tags that stand without one.
        prefix_of: makes a uri prefix of what stands behind `under:`.

    Raises:
        QueryError: it is no query, or cannot be answered from what the model stored.
        ThresholdError: it needs the threshold of a tag, and `cut` has more than thresholds.
    """
    return _Parser(query, Leaves(query, model, Vocabulary(tags), cut, prefix_of)).whole()


def quoted(name: str) -> str:
    """A tag's name as a word that means this tag in any query."""
    return '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'


class _Parser:
    """Recursive descent over the words.

    group = chain { chain }       all of them; those that have ~ before them count as one, an OR
    chain = term { "~" term }     one of them
    term  = ["~"] ["-"] ( word | "(" group ")" )
    """

    def __init__(self, query: str, leaves: Leaves) -> None:
        self._query = query
        self._leaves = leaves
        self._left = words(query)[::-1]
        self._terms = 0
        self._model_seen = False

    def whole(self) -> Node:
        """All of the query."""
        node = self._group(depth=0)
        if closing := self._next():
            raise self._error(closing.start(), "This bracket closes nothing. A bracket in a name is quoted.")
        if node is None:
            raise self._error(len(self._query), "The query is empty. Name a tag, as in: cat -dog:0.2")
        return node

    def _group(self, depth: int) -> Node | None:
        every: list[Node] = []
        marked: list[Node] = []
        marks: list[int] = []
        joined = False
        while self._left and self._left[-1].group() != _CLOSING:
            word = self._left.pop()
            if word.group() == _OR:
                raise self._error(word.start(), _MIXED if marks else _BETWEEN)
            if depth == 0 and self._is_model(word):
                continue
            mark, node = self._term(word, depth)
            if mark and joined:
                raise self._error(word.start(), _MIXED)
            if mark:
                marked.append(node)
                marks.append(word.start())
                continue
            parts = [node, *self._alternatives(depth, mixed=bool(marks))]
            joined = joined or len(parts) > 1
            every.append(_several(Or, parts))
        if len(marks) == 1:
            raise self._error(marks[0], "~ stands before each of several terms (~a ~b), or between them (a ~ b).")
        if marked:
            every.append(Or(tuple(marked)))
        return _several(And, every) if every else None

    def _alternatives(self, depth: int, *, mixed: bool) -> Iterator[Node]:
        """The terms that follow, each with a ~ before it as a word of its own."""
        while self._left and self._left[-1].group() == _OR:
            tilde = self._left.pop()
            if mixed:
                raise self._error(tilde.start(), _MIXED)
            if not self._left or self._left[-1].group() in (_OR, _CLOSING):
                raise self._error(tilde.start(), _BETWEEN)
            word = self._left.pop()
            mark, node = self._term(word, depth)
            if mark:
                raise self._error(word.start(), _MIXED)
            yield node

    def _term(self, word: Word, depth: int) -> tuple[bool, Node]:
        """Whether ~ stands before it, and the term."""
        if word.group() in _OPENING:
            sign, node = word.group()[:-1], self._bracketed(word, depth + 1)
        else:
            self._terms += 1
            if self._terms > MAX_TERMS:
                raise self._error(word.start(), f"A query has at most {MAX_TERMS} terms.")
            term = self._leaves.term(word)
            if term.key == "model":
                raise self._error(word.start(), "model: stands outside of groups, without - and ~.")
            sign, node = term.sign, self._leaves.node(term)
        if "-" in sign:
            node = node.part if isinstance(node, Not) else Not(node)
        return "~" in sign, node

    def _bracketed(self, opening: Word, depth: int) -> Node:
        at = opening.end() - 1
        if depth > MAX_DEPTH:
            raise self._error(at, f"Groups stand in each other at most {MAX_DEPTH} deep.")
        node = self._group(depth)
        if self._next() is None:
            raise self._error(at, "This bracket is never closed. A bracket in a name is quoted.")
        if node is None:
            raise self._error(at, "This group is empty.")
        return node

    def _is_model(self, word: Word) -> bool:
        term = keyed(word, "")
        if term is None or term.key != "model" or sign_of(word):
            return False
        if word["rest"]:
            raise self._error(word.start("rest"), "Behind the closing quote stands a space.")
        if not term.name:
            raise self._error(term.name_at, "model: needs the name or the id of a model, see `tagonce models`.")
        if self._model_seen:
            raise self._error(word.start(), "model: stands once in a query.")
        self._model_seen = True
        return True

    def _next(self) -> Word | None:
        return self._left.pop() if self._left else None

    def _error(self, at: int, what: str) -> QueryError:
        return QueryError(self._query, at, what)


def _several(kind: type[And] | type[Or], parts: Sequence[Node]) -> Node:
    return parts[0] if len(parts) == 1 else kind(tuple(parts))
