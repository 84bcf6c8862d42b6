r"""The query language: booru syntax over stored probabilities, parsed into a tree of plain data (`db.search.tree`).

    cat -dog                both: cat, and not dog
    cat ~ dog bird          cat or dog, and bird: `~` has a higher precedence than the space
    ~cat ~dog bird          the same: the terms of a group that have `~` before them are one OR
    ( cat bird ) ~ -( dog ) groups; brackets, and `~` between terms, need white space around them
    cat                     the threshold in force for this tag: of a profile, of --threshold, or the model's own
    cat:0.5                 p >= 0.5; the same as cat:0.5.. and cat:>=0.5
    cat:0.2..0.4            0.2 <= p < 0.4; an upper end of 1 includes 1
    cat:..0.4               p < 0.4, or not stored; the same as cat:<0.4
    *_hair:0.5              any tag that matches the pattern
    category:character:0.8  any tag of the category
    under:PATH              images in a folder or under an s3:// prefix
    width:>=1024            a fact of the file, as `db.search.facts` has them: also height, bytes, format, date
    model:NAME              the model whose scores are searched; once, outside of groups
    "re:zero":0.5           quoted, the whole word is a name; \" and \\ inside

A whole word that is the name of a tag is that tag (`-_-`, `re:zero`, `~_~`, `*_*`, `saber_(fate)`). A word that begins
with a known tag and a colon is the tag and a threshold. In all other words `-`, `~` and `*` are operators. The words
`(`, `)`, `-(` and `~` are tags only in quotes.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from db.ledger.models import Model, Tag
from db.names.vocabulary import Vocabulary
from db.policy.policies import Cut
from db.search.terms import Leaves, QueryError, Word, keyed, sign_of, words
from db.search.tree import And, Node, Not, Or, Reaches, Under, Within

__all__ = ["And", "Node", "Not", "Or", "QueryError", "Reaches", "Under", "Within", "named_model", "parse", "quoted"]

MAX_TERMS = 100
MAX_DEPTH = 20
"""Levels of nested groups."""

_OPENING = ("(", "-(", "~(", "~-(")
_CLOSING = ")"
_OR = "~"
_BETWEEN = "~ as a separate word must be between two terms: a ~ b"
_MIXED = "A group has ~ either before its terms (~a ~b) or between them (a ~ b), not both."


def named_model(query: str) -> str | None:
    """The name after `model:`; None without one. `parse` needs the tags of that model."""
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
    """Parse a query.

    Args:
        tags: of the model, by output position.
        cut: thresholds of the tags that have none in the query.
        prefix_of: converts the text after `under:` to a prefix of uris.

    Raises:
        QueryError: the query is malformed, or the stored scores of the model cannot answer it.
        ThresholdError: the query needs the threshold of a tag, and `cut` has a rule of another kind (top, MCut).
    """
    return _Parser(query, Leaves(query, model, Vocabulary(tags), cut, prefix_of)).whole()


def quoted(name: str) -> str:
    """The name of a tag as a quoted word, which is this tag in any query."""
    return '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'


class _Parser:
    """A recursive descent parser over the words.

    group = chain { chain }       AND; the terms with ~ before them form one OR
    chain = term { "~" term }     OR
    term  = ["~"] ["-"] ( word | "(" group ")" )
    """

    def __init__(self, query: str, leaves: Leaves) -> None:
        self._query = query
        self._leaves = leaves
        self._left = words(query)[::-1]
        self._terms = 0
        self._model_seen = False

    def whole(self) -> Node:
        """Parse the whole query."""
        node = self._group(depth=0)
        if closing := self._next():
            raise self._error(closing.start(), "This bracket is never opened. Put a name with brackets in quotes.")
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
            raise self._error(marks[0], "~ must be before at least two terms (~a ~b), or between terms (a ~ b).")
        if marked:
            every.append(Or(tuple(marked)))
        return _several(And, every) if every else None

    def _alternatives(self, depth: int, *, mixed: bool) -> Iterator[Node]:
        """The following terms that have a ~ before them as a separate word."""
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
        """(whether ~ is directly before the term, the node of the term)."""
        if word.group() in _OPENING:
            sign, node = word.group()[:-1], self._bracketed(word, depth + 1)
        else:
            self._terms += 1
            if self._terms > MAX_TERMS:
                raise self._error(word.start(), f"A query has at most {MAX_TERMS} terms.")
            term = self._leaves.term(word)
            if term.key == "model":
                raise self._error(word.start(), "model: must be outside of groups, without - and ~.")
            sign, node = term.sign, self._leaves.node(term)
        if "-" in sign:
            node = node.part if isinstance(node, Not) else Not(node)
        return "~" in sign, node

    def _bracketed(self, opening: Word, depth: int) -> Node:
        at = opening.end() - 1
        if depth > MAX_DEPTH:
            raise self._error(at, f"Groups can be nested at most {MAX_DEPTH} deep.")
        node = self._group(depth)
        if self._next() is None:
            raise self._error(at, "This bracket is never closed. Put a name with brackets in quotes.")
        if node is None:
            raise self._error(at, "This group is empty.")
        return node

    def _is_model(self, word: Word) -> bool:
        term = keyed(word, "")
        if term is None or term.key != "model" or sign_of(word):
            return False
        if word["rest"]:
            raise self._error(word.start("rest"), "A space must follow the closing quote.")
        if not term.name:
            raise self._error(term.name_at, "model: needs the name or the id of a model, see `tagonce models`.")
        if self._model_seen:
            raise self._error(word.start(), "model: is allowed only once in a query.")
        self._model_seen = True
        return True

    def _next(self) -> Word | None:
        return self._left.pop() if self._left else None

    def _error(self, at: int, what: str) -> QueryError:
        return QueryError(self._query, at, what)


def _several(kind: type[And] | type[Or], parts: Sequence[Node]) -> Node:
    return parts[0] if len(parts) == 1 else kind(tuple(parts))
